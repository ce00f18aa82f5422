"""`build.py bench --shapes NAME`: speed and counts of a model's shapes, with random weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py_engine.tooling.gpu_bench.random_model import known_shapes
from py_engine.tooling.in_worker import page_of_site, run_in_worker
from py_engine.tooling.model_shapes import MODEL_SHAPES

if TYPE_CHECKING:
    from playwright.sync_api import Page

CONTEXTS = (128, 1024, 2048)
N_TOKENS = 12
PROMPT_TOKENS = 128
BATCHES = (1, 2, 4)

_TOOLING = Path(__file__).parent
_FILES = (
    *(f"{name}.py" for name in ("__init__", "bench_shapes_worker", "model_shapes", "steps")),
    *(f"gpu_bench/{name}.py" for name in ("__init__", "decoding", "random_data", "random_model")),
    MODEL_SHAPES.name,
)
"""What the worker needs of this package, which sites do not have."""

_MEASURE = """
    const { py } = await boot();
    py.FS.mkdirTree('/bench/py_engine/tooling/gpu_bench');
    for (const [name, text] of Object.entries(argument.files)) {
        py.FS.writeFile(`/bench/py_engine/tooling/${name}`, text);
    }
    const globals = py.toPy(argument.arguments);
    return JSON.parse(await py.runPythonAsync(`
import py_engine

py_engine.__path__.append("/bench/py_engine")
from py_engine.tooling.bench_shapes_worker import measure

await measure(shapes, n_tokens, contexts, prompt_tokens, batches)
    `, { globals }));
"""


def main(site_folder: Path, shapes: str, *, as_json: bool) -> int:
    """Measure a model of these shapes, one of `known_shapes`; print a table, or JSON."""
    if shapes not in known_shapes():
        names = ", ".join(known_shapes())
        print(f"bench: --shapes {shapes} is not known. Give one of {names}.", file=sys.stderr)
        return 2
    with page_of_site(site_folder) as (page, url):
        found = measure_shapes(page, url, shapes)
    print(json.dumps(found, indent=2) if as_json else "\n".join(table(found)))
    return 0


def measure_shapes(
    page: Page,
    url: str,
    shapes: str,
    *,
    n_tokens: int = N_TOKENS,
    contexts: tuple[int, ...] = CONTEXTS,
    prompt_tokens: int = PROMPT_TOKENS,
    batches: tuple[int, ...] = BATCHES,
) -> dict[str, Any]:
    """Return the figures of `bench_shapes_worker.measure`, which runs in a new worker."""
    argument = {
        "files": {name: (_TOOLING / name).read_text(encoding="utf-8") for name in _FILES},
        "arguments": {
            "shapes": shapes,
            "n_tokens": n_tokens,
            "contexts": list(contexts),
            "prompt_tokens": prompt_tokens,
            "batches": list(batches),
        },
    }
    found: dict[str, Any]
    found, _ = run_in_worker(page, url, _MEASURE, argument)
    return found


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Return the lines of a table."""
    yield f"{found['shapes']}, random weights in 4 bits, on {found['adapter']}\n"
    yield _row("build and compile, s", f"{found['build_s']:.2f}")
    yield _row(
        f"prefill of {found['prompt_tokens']}, tokens/s", f"{found['prefill_tokens_per_s']:.2f}"
    )
    for each in found["decode"]:
        yield _row(f"decode after {each['context']}, tokens/s", f"{each['tokens_per_s']:.3f}")
    first, *others = found["decode"]
    for each in others:
        step = f"step after {each['context']} of one after {first['context']}"
        yield _row(step, f"{first['tokens_per_s'] / each['tokens_per_s']:.2f} x")
        aim = 1.25 + each["cache_s"] * first["tokens_per_s"]
        yield _row("  aimed at: 1.25 and the cache once", f"{aim:.2f} x")
    for name, count in found["decode"][0]["counts"].items():
        yield _row(f"{_COUNTS[name]} per token", f"{count:,.4g}")
    alone, *batches = found["batches"]
    for each in batches:
        name, ratio = f"{each['sequences']} together", each["tokens_per_s"] / alone["tokens_per_s"]
        yield _row(f"{name}, of one's tokens/s", f"{ratio:.2f} x")
        yield _row(f"{name}, dispatches per token", f"{each['dispatches_per_token']:.1f}")
    if "int8_over_float32" in found:
        yield _row("decode with int8 activations", f"{found['int8_over_float32']:.2f} x")
    yield _row("step of one workgroup a dispatch, ms", f"{found['null_one_ms']:.1f}")
    yield _row("step of no workgroups, ms", f"{found['null_none_ms']:.1f}")
    yield _row("pipelines, less those of the draw", f"{found['pipelines']}")
    yield _row("buffers on the GPU, MB", f"{found['gpu_bytes'] / 1e6:.0f}")


_COUNTS = {
    "dispatches": "dispatches",
    "passes": "compute passes",
    "submits": "submits",
    "readbacks": "read-backs",
    "bytesRead": "bytes read back",
}


def _row(label: str, figure: str) -> str:
    return f"{label:<44} {figure:>10}"
