"""How fast weights pass from the browser's storage to the GPU, beside a plain read of the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from py_engine.tooling.in_worker import run_in_worker
from py_engine.tooling.server import SiteServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

MOUNT = "/bench-weights/"
MEGABYTES = 100
_ROWS, _COLUMNS = 4096, 1024
_WORKER_SOURCE = Path(__file__).with_name("bench_weights_worker.py")

_MEASURE = """
    const { py } = await boot();
    const globals = py.toPy({});
    await py.runPythonAsync(argument.source, { globals });
    return JSON.parse(await globals.get('measure_weights')(
        argument.model, argument.matrices, argument.rows, argument.columns, argument.runs));
"""


@contextmanager
def random_weights(megabytes: int) -> Iterator[tuple[Path, int]]:
    """Make a folder in MLC's format with random 4-bit matrices; yield it and their number."""
    import numpy as np

    from py_engine.weights.mlc_writer import MlcWriter, write_json
    from py_engine.weights.quantization import StoredTensor

    random = np.random.default_rng(3)
    n_matrices = max(1, round(megabytes * 1e6 / (_ROWS * _COLUMNS * 9 / 16)))
    with TemporaryDirectory() as name:
        folder = Path(name)
        writer = MlcWriter(folder)
        for index in range(n_matrices):
            codes = random.integers(0, 1 << 32, (_ROWS, _COLUMNS // 8), np.uint32)
            scales = random.random((_ROWS, _COLUMNS // 32), np.float32).astype(np.float16)
            writer.add(StoredTensor(f"m{index}.q_weight", "uint32", "raw", codes))
            writer.add(StoredTensor(f"m{index}.q_scale", "float16", "raw", scales))
        writer.finish()
        write_json(folder / "mlc-chat-config.json", {"quantization": "q4f16_1"})
        yield folder, n_matrices


def measure_weights(
    page: Page, server: SiteServer, megabytes: int = MEGABYTES, runs: int = 3
) -> dict[str, Any]:
    """Load random weights from OPFS on a site that `page` is on; the best of `runs` each.

    `server` gets the folder of the weights mounted for a while.
    """
    with random_weights(megabytes) as (folder, n_matrices):
        server.mounts = {**server.mounts, MOUNT: folder}
        argument = {
            "source": _WORKER_SOURCE.read_text(encoding="utf-8"),
            "model": f"{server.url}{MOUNT}",
            "matrices": n_matrices,
            "rows": _ROWS,
            "columns": _COLUMNS,
            "runs": runs,
        }
        figures, _ = run_in_worker(page, server.url, _MEASURE, argument)
    found: dict[str, Any] = figures
    return found
