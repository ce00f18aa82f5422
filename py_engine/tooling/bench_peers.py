"""`build.py bench --peers NAME`: ours and other engines with the same model, in one browser."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py_engine.tooling.chromium import launch
from py_engine.tooling.gpu_bench.random_model import known_shapes
from py_engine.tooling.in_worker import run_in_worker
from py_engine.tooling.peers.gguf_model import write_gguf
from py_engine.tooling.server import SiteServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROUNDS = 2
PROMPT_TOKENS = 128
N_TOKENS = 16
CONTEXT = 1280
THREADS = 2
_FILE = "model.gguf"
_MOST_MS = 900_000

# What threads of WebAssembly need.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}

Figures = Mapping[str, Any]
Measure = Callable[["Page", str], Figures]
"""Measures an engine on a page of the site at a URL."""

_OURS = """
    const { py } = await boot();
    const globals = py.toPy({});
    await py.runPythonAsync(argument.source, { globals });
    return JSON.parse(await globals.get('measure')(
        argument.model, argument.context, argument.promptTokens, argument.nTokens));
"""

_WLLAMA = """async ({ url, file, gpuLayers, threads, context, promptTokens, nTokens }) => {
    const { Wllama } = await import(`${url}/peers/@wllama/wllama/esm/index.js`);
    const lines = [];
    const log = (...parts) => lines.push(parts.join(' '));
    const wllama = new Wllama(
        { default: `${url}/peers/@wllama/wllama/esm/wasm/wllama.wasm` },
        { logger: { debug: log, log, warn: log, error: log } });
    const began = performance.now();
    const blob = await (await fetch(`${url}/peer-models/${file}`)).blob();
    await wllama.loadModel([blob], {
        n_ctx: context, n_threads: threads, n_gpu_layers: gpuLayers, n_parallel: 1, warmup: false,
    });
    const loaded = performance.now();
    const ask = (prompt, max_tokens) => wllama.createCompletion(
        { prompt, max_tokens, temperature: 0, ignore_eos: true });
    await ask('warm', 2);
    const { timings } = await ask('a'.repeat(promptTokens), nTokens);
    const weights = lines.filter((line) => line.includes('model buffer size'));
    await wllama.exit();
    return {
        load_s: (loaded - began) / 1000,
        prompt_tokens: timings.prompt_n + timings.cache_n,
        first_token_s: timings.prompt_ms / 1000,
        prefill_tokens_per_s: timings.prompt_per_second,
        decode_tokens_per_s: timings.predicted_per_second,
        where: weights.map((line) => line.trim().split(/\\s+/)[1]).join(' and ') || 'unknown',
    };
}"""

_WORKER_SOURCE = Path(__file__).with_name("bench_peers_worker.py")


def main(site_folder: Path, peers: Path, shapes: str, *, as_json: bool) -> int:
    """Measure a model of these shapes, one of `known_shapes`; print a table, or JSON.

    `peers` is the `node_modules` with the other engines.
    """
    if shapes not in known_shapes():
        names = ", ".join(known_shapes())
        print(f"bench: --peers {shapes} is not known. Give one of {names}.", file=sys.stderr)
        return 2
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        write_gguf(shapes, Path(folder) / _FILE)
        with server_for(site_folder, peers, Path(folder)) as server:
            browser, adapter = launch(playwright)
            found = measure_peers(browser, server.url)
            browser.close()
    if as_json:
        print(json.dumps({"shapes": shapes, "adapter": adapter, "engines": found}, indent=2))
    else:
        print(f"{shapes}, random weights in 4 bits (Q4_0), on {adapter}\n")
        print("\n".join(table(found)))
        print("\nin brackets: what ours is of it, turned so that above 1 is in favour of ours")
    return 0


def server_for(site_folder: Path, peers: Path, models: Path) -> SiteServer:
    """Return a server of the site with the other engines and the models."""
    mounts = {"/peers/": peers, "/peer-models/": models}
    return SiteServer(site_folder, mounts=mounts, headers=HEADERS)


def measure_peers(
    browser: Browser,
    url: str,
    rounds: int = ROUNDS,
    prompt_tokens: int = PROMPT_TOKENS,
    n_tokens: int = N_TOKENS,
) -> dict[str, dict[str, Any]]:
    """Return the best figures of each engine; they take turns, each in a browser context anew."""
    engines = engines_of(prompt_tokens, n_tokens)
    found: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for name, measure in engines.items():
            context = browser.new_context()
            context.set_default_timeout(_MOST_MS)
            page = context.new_page()
            page.goto(f"{url}/build.json")
            figures = measure(page, url)
            context.close()
            found[name] = {
                key: _better(key, value, found.get(name, {}).get(key))
                for key, value in figures.items()
            }
    return found


def engines_of(prompt_tokens: int, n_tokens: int) -> dict[str, Measure]:
    """Return what measures each engine, ours first."""
    sizes = {"context": CONTEXT, "promptTokens": prompt_tokens, "nTokens": n_tokens}

    def ours(page: Page, url: str) -> Figures:
        source = _WORKER_SOURCE.read_text(encoding="utf-8")
        argument = {"source": source, "model": f"{url}/peer-models/{_FILE}", **sizes}
        figures, _ = run_in_worker(page, url, _OURS, argument)
        found: Figures = figures
        return found

    def wllama(gpu_layers: int) -> Measure:
        def measure(page: Page, url: str) -> Figures:
            argument = {"url": url, "file": _FILE, "gpuLayers": gpu_layers, "threads": THREADS}
            found: Figures = page.evaluate(_WLLAMA, argument | sizes)
            return found

        return measure

    return {
        "PyWebLLM": ours,
        "wllama, WebGPU allowed": wllama(999),
        f"wllama, {THREADS} threads": wllama(0),
    }


def _better(key: str, new: Any, best: Any) -> Any:
    if best is None or not isinstance(new, float):
        return new
    return max(new, best) if key.endswith("_per_s") else min(new, best)


_COLUMNS = {
    "load_s": "load, s",
    "first_token_s": "first token, s",
    "prefill_tokens_per_s": "prefill, tokens/s",
    "decode_tokens_per_s": "decode, tokens/s",
}


def table(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Return the lines of a table; in brackets by how much ours is better than each figure."""
    (_, ours), *_ = found.items()
    yield f"{'':<26}" + "".join(f"{label:>22}" for label in _COLUMNS.values()) + "   computed on"
    for name, figures in found.items():
        cells = []
        for key in _COLUMNS:
            ratio = ours[key] / figures[key]
            better = ratio if key.endswith("_per_s") else 1 / ratio
            cells.append(f"{figures[key]:.2f} ({better:.2f} x)".rjust(22))
        yield f"{name:<26}" + "".join(cells) + f"   {figures['where']}"
