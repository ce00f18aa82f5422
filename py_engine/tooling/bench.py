"""`build.py bench`: what boot, load and generation of the embedded model cost on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py_engine.config import prebuilt_app_config
from py_engine.tooling.bench_messages import MOUNTS, measure_messages
from py_engine.tooling.bench_weights import measure_weights
from py_engine.tooling.boot_times import measure_boot
from py_engine.tooling.chromium import launch
from py_engine.tooling.in_worker import run_in_worker
from py_engine.tooling.server import SiteServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

_WORKER_SOURCE = Path(__file__).with_name("bench_worker.py")
_LONG_PROMPT = "Once upon a time, there was a little girl who had a red ball and a kind dog. " * 16

_MEASURE = """
    const { py } = await boot();
    globalThis.thenCalls = 0;
    const { then } = Promise.prototype;
    Promise.prototype.then = function (...handlers) {
        globalThis.thenCalls++;
        return then.apply(this, handlers);
    };
    const globals = py.toPy({});
    await py.runPythonAsync(argument.source, { globals });
    return JSON.parse(await globals.get('measure')(
        argument.model, argument.prompt, argument.runs, argument.replyTokens));
"""

_LABELS = {
    "adapter": "adapter",
    "boot_s": "boot from the snapshot, s",
    "boot_plain_s": "boot without it, s",
    "boot_ratio": "ratio of the two",
    "load_s": "load, s",
    "load_heap_bytes": "wasm heap growth of the load, bytes",
    "weights_bytes_per_s": "weights from storage to the GPU, bytes/s",
    "weights_plain_bytes_per_s": "plain read and writeBuffer of the same, bytes/s",
    "weights_ratio": "ratio of the two",
    "ttft_s": "time to first token (24 tokens of prompt), s",
    "prompt_tokens": "tokens of the long prompt",
    "prefill_tokens_per_s": "prefill, tokens/s",
    "decode_tokens_per_s": "decode, tokens/s",
    "layers": "layers",
    "dispatches_per_token": "dispatches per token",
    "submits_per_token": "submits per token",
    "readbacks_per_token": "read-backs per token",
    "bridge_calls_per_token": "bridge calls per token, both ways",
    "python_ms_per_token": "Python per token, ms",
    "submit_ms_per_token": "replay of a token's program in JavaScript, ms",
    "grammar_compile_ms": "compiling a JSON Schema's grammar, ms",
    "grammar_ms_per_token": "mask and acceptance per token, ms",
    "grammar_ratio": "token with a grammar over one without",
    "prediction_ratio": "token with a prediction that is right over one without",
    "prediction_accepted": "part of the tokens that were guessed",
    "proxy_ms_per_chunk_mpy": "proxy's work per streamed chunk, MicroPython, ms",
    "round_trip_ms_per_chunk_mpy": "chunk that the worker has ready, round trip, ms",
    "proxy_ms_per_chunk_py": "proxy's work per streamed chunk, Pyodide, ms",
    "round_trip_ms_per_chunk_py": "chunk that the worker has ready, round trip, ms",
    "message_wait_ms": "a message's answer while 3 clients stream, ms",
    "message_wait_ms_p99": "the same, 99th percentile, ms",
    "message_wait_tokens_per_s": "chunks meanwhile, per second",
    "weight_bytes_per_token": "weight bytes read per token",
    "copy_bytes_per_s": "copy bandwidth (read + written), bytes/s",
    "bandwidth_fraction": "fraction of that bandwidth",
}


def main(site_folder: Path, *, as_json: bool) -> int:
    """Measure the embedded model of a built site; print a table, or JSON."""
    figures = measure(site_folder)
    if as_json:
        print(json.dumps(figures, indent=2))
        return 0
    for key, label in _LABELS.items():
        print(f"{label:<46} {_shown(figures[key])}")
    return 0


def measure(site_folder: Path) -> dict[str, Any]:
    """Return the figures by the keys of `_LABELS`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, SiteServer(site_folder, mounts=MOUNTS) as server:
        browser, _ = launch(playwright)
        boot = measure_boot(browser, server.url)
        page = browser.new_page()
        page.goto(f"{server.url}/build.json")
        figures = measure_model(page, server.url) | measure_weights(page, server)
        figures |= measure_messages(browser, server)
        browser.close()
    figures |= {
        "boot_s": boot.snapshot_s,
        "boot_plain_s": boot.plain_s,
        "boot_ratio": boot.snapshot_s / boot.plain_s,
    }
    return {key: figures[key] for key in _LABELS}


def measure_model(page: Page, url: str, runs: int = 3, reply_tokens: int = 144) -> dict[str, Any]:
    """Load and run the embedded model in a new worker of the site at `url`; the best of `runs`."""
    argument = {
        "source": _WORKER_SOURCE.read_text(encoding="utf-8"),
        "model": f"{url}/{prebuilt_app_config.model_list[0].model}",
        "prompt": _LONG_PROMPT,
        "runs": runs,
        "replyTokens": reply_tokens,
    }
    figures, _ = run_in_worker(page, url, _MEASURE, argument)
    found: dict[str, Any] = figures
    return found


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
