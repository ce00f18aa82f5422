"""`build.py bench --peers NAME`: ours and other engines with the same model, in Chromium.

Each has a profile of its own, on the disk as a user's, and no debugger, which would cost its page
time. The library is Python for ours, JavaScript for others, whose WebAssembly comes with the first
model; then the model loads, tokenizer included.

Each engine takes three prompts of the same length. The first asks for one token and warms it up:
some compile their kernels only then.
The second is timed; what it calls of WebGPU more often than the first is what its tokens cost.
During the third each dispatch has but one workgroup, which leaves what an engine costs beside its
arithmetic. The browser, started anew, then loads the model again, from where the engine keeps it by
default.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from py_engine.tooling.chromium import Adapter, launch
from py_engine.tooling.environment import ensure_onnx_builder
from py_engine.tooling.gpu_bench.random_model import known_shapes
from py_engine.tooling.in_worker import run_in_worker
from py_engine.tooling.peers.gguf_model import write_gguf
from py_engine.tooling.peers.onnx_model import write_onnx
from py_engine.tooling.steps import SetupError
from py_engine.tooling.unwatched import Unwatched, unwatched_server

ROUNDS = 2
N_TOKENS = 16
THREADS = 2
MODEL = "model"
"""Name of the model: a GGUF file and a folder of ONNX."""

_CONTEXT_UNIT = 1280
_MOST_DECODE_S = 30
"""A slow engine need not decode all tokens."""

# What threads of WebAssembly need.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}

Figures = dict[str, Any]
Measure = Callable[[Unwatched, bool], Figures]
"""Measures an engine in a browser, or only how long it loads again."""

_OURS = """
    const { py } = await boot();
    const globals = py.toPy({});
    await py.runPythonAsync(argument.source, { globals });
    const { address, context, promptTokens, nTokens, isAgain } = argument;
    return JSON.parse(await globals.get('measure')(
        address, context, promptTokens, nTokens, isAgain));
"""
_PEER = "async ({ page, argument }) => (await import(page)).measure(argument)"

_PAGES = Path(__file__).with_name("peers")
_COUNTER = "/peer-pages/gpu_counts.js"
_WORKER_SOURCE = Path(__file__).with_name("bench_peers_worker.py")


def main(site_folder: Path, peers: Path, shapes: str, prompt_tokens: int, *, as_json: bool) -> int:
    """Measure a model of these shapes, one of `known_shapes`; print tables, or JSON.

    `peers` is the `node_modules` with the other engines.
    """
    if shapes not in known_shapes():
        names = ", ".join(known_shapes())
        print(f"bench: --peers {shapes} is not known. Give one of {names}.", file=sys.stderr)
        return 2
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        write_gguf(shapes, models / f"{MODEL}.gguf")
        with_onnx = _writes_onnx(shapes, models / MODEL)
        with sync_playwright() as playwright:
            browser, adapter = launch(playwright)
            browser.close()
        engines = engines_of(prompt_tokens, with_onnx=with_onnx)
        found = measure_peers(site_folder, peers, models, engines)
    if as_json:
        told = {"shapes": shapes, "prompt_tokens": prompt_tokens, "adapter": adapter}
        print(json.dumps(told | {"engines": found}, indent=2))
    else:
        print(f"{shapes}, random weights in 4 bits, {prompt_tokens} tokens, on {adapter}\n")
        print("\n".join(table(found)))
        print("\nin brackets: what ours is of it, turned so that above 1 is in favour of ours\n")
        print("\n".join(table_of_counts(found)))
    return 0


def _writes_onnx(shapes: str, folder: Path) -> bool:
    """Write the model for transformers.js, if this machine can have what that needs."""
    try:
        write_onnx(ensure_onnx_builder(), shapes, folder)
    except SetupError as error:
        print(f"bench: transformers.js is left out.\n{error}", file=sys.stderr)
        return False
    return True


def measure_peers(
    site_folder: Path,
    peers: Path,
    models: Path,
    engines: Mapping[str, Measure],
    rounds: int = ROUNDS,
    adapter: Adapter = "hardware",
) -> dict[str, Figures]:
    """Return the best figures of each engine; they take turns, each with a profile anew.

    `peers` is the `node_modules` with the other engines, `models` the folder of the models.
    """
    found: dict[str, Figures] = {}
    mounts = {"/peers/": peers, "/peer-pages/": _PAGES, "/peer-models/": models}
    with unwatched_server(site_folder, mounts, HEADERS) as (server, answers):
        for name, measure in [*engines.items()] * rounds:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
                browser = Unwatched(server.url, answers, Path(profile), adapter, [_COUNTER])
                figures = measure(browser, False) | measure(browser, True)
            figures["counts"] = _per_token(figures["counts"], figures["decoded_tokens"])
            before = found.get(name, figures)
            found[name] = {key: _better(key, figures[key], before[key]) for key in figures}
    return found


def engines_of(
    prompt_tokens: int, n_tokens: int = N_TOKENS, *, with_onnx: bool
) -> dict[str, Measure]:
    """Return what measures each engine, ours first."""
    context = _CONTEXT_UNIT * -(-(prompt_tokens + n_tokens) // _CONTEXT_UNIT)
    sizes = {"context": context, "promptTokens": prompt_tokens, "nTokens": n_tokens}

    def ours(browser: Unwatched, is_again: bool) -> Figures:
        argument = {
            "source": _WORKER_SOURCE.read_text(encoding="utf-8"),
            "address": f"{browser.site_url}/peer-models/{MODEL}.gguf",
            "isAgain": is_again,
            **sizes,
        }
        found: Figures = run_in_worker(browser, browser.site_url, _OURS, argument)[0]
        return found

    def peer(script: str, options: Mapping[str, object]) -> Measure:
        def measure(browser: Unwatched, is_again: bool) -> Figures:
            argument = {"url": browser.site_url, "model": MODEL, "isAgain": is_again}
            call = {"page": f"/peer-pages/{script}", "argument": {**argument, **options, **sizes}}
            found: Figures = browser.evaluate(_PEER, call)
            return found

        return measure

    on_cpu = {"gpuLayers": 0, "threads": THREADS}
    engines = {
        "PyWebLLM": ours,
        "transformers.js": peer("transformers.js", {"mostDecodeSeconds": _MOST_DECODE_S}),
        "wllama, WebGPU allowed": peer("wllama.js", on_cpu | {"gpuLayers": 999}),
        f"wllama, {THREADS} threads": peer("wllama.js", on_cpu),
    }
    if not with_onnx:
        del engines["transformers.js"]
    return engines


_COUNTED_IN_ALL = ("pipelines", "buffers", "bufferBytes")
"""What is not counted for each token, but until the reply's end."""


def _per_token(counts: list[dict[str, int]], n_tokens: int) -> dict[str, float]:
    """Return the counts of a decoded token, given those before, between and after two replies."""
    before, between, after = counts
    return {
        name: float(after[name])
        if name in _COUNTED_IN_ALL
        else (after[name] - 2 * between[name] + before[name]) / n_tokens
        for name in after
    }


def _better(key: str, new: Any, best: Any) -> Any:
    if not isinstance(new, float):
        return new
    return max(new, best) if key.endswith("_per_s") else min(new, best)


_COLUMNS = {
    "library_s": "library, s",
    "load_s": "load, s",
    "load_again_s": "load again, s",
    "first_answer_s": "load and answer, s",
    "first_token_s": "first token, s",
    "prefill_tokens_per_s": "prefill, tokens/s",
    "decode_tokens_per_s": "decode, tokens/s",
}


def table(found: Mapping[str, Figures]) -> Iterator[str]:
    """Return the lines of a table; in brackets by how much ours is better than each figure."""
    (_, ours), *_ = found.items()
    yield f"{'':<24}" + "".join(f"{label:>22}" for label in _COLUMNS.values()) + "   computed on"
    for name, figures in found.items():
        cells = []
        for key in _COLUMNS:
            ratio = ours[key] / figures[key]
            better = ratio if key.endswith("_per_s") else 1 / ratio
            cells.append(f"{figures[key]:.3g} ({better:.2f} x)".rjust(22))
        yield f"{name:<24}" + "".join(cells) + f"   {figures['where']}"


_COUNTS = {
    "dispatches": "dispatches",
    "passes": "passes",
    "submits": "submits",
    "readbacks": "read-backs",
    "bytesRead": "bytes read",
    "writes": "writes",
    "bytesWritten": "bytes written",
    "bindGroups": "bind groups",
    "buffers": "buffers",
    "pipelines": "pipelines",
    "bufferBytes": "MB",
}


def table_of_counts(found: Mapping[str, Figures]) -> Iterator[str]:
    """Return the lines of a table of what those engines ask of WebGPU that use it."""
    on_gpu = {name: each for name, each in found.items() if each["counts"]["dispatches"]}
    yield f"{'a decoded token':<24}" + "".join(f"{name:>24}" for name in on_gpu)
    for key, label in _COUNTS.items():
        whole = " in all" if key in _COUNTED_IN_ALL else ""
        scale = 1e-6 if key == "bufferBytes" else 1
        cells = (f"{scale * each['counts'][key]:,.4g}" for each in on_gpu.values())
        yield f"{label + whole:<24}" + "".join(f"{cell:>24}" for cell in cells)
    label = "one workgroup each, ms"
    yield f"{label:<24}" + "".join(f"{each['null_ms']:>24.3g}" for each in on_gpu.values())
