"""Writes fixtures/gguf_blocks.npz: random blocks of every GGUF format and what PyPI `gguf` makes of
them. Run it as `PYTHONPATH=<folder with gguf 0.19.0> python -m tests.kernels.make_gguf_blocks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from py_engine.kernels.formats import GGUF_FORMATS, MATRIX_FORMATS, GgufFormat
from tests.kernels.cases import gguf_blocks

FIXTURE = Path(__file__).parent / "fixtures" / "gguf_blocks.npz"
N_COLUMNS = 768

Array = np.ndarray[Any, Any]


def oracle_values(weight_format: GgufFormat, blocks: Array) -> Array:
    """Return what gguf's own reader gives for blocks, f32 (blocks, columns of a block)."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = weight_format.upper()
    return np.asarray(dequantize(blocks, GGMLQuantizationType[kind]), np.float32)


def random_blocks(weight_format: GgufFormat, seed: int) -> Array:
    """Return random blocks that fill two rows of `N_COLUMNS`."""
    return gguf_blocks(np.random.default_rng(seed), weight_format, 2, N_COLUMNS)


def main() -> None:
    """Write the fixture."""
    arrays = {}
    for seed, weight_format in enumerate(GGUF_FORMATS):
        blocks = random_blocks(weight_format, seed)
        values = oracle_values(weight_format, blocks)
        assert values.shape == (len(blocks), MATRIX_FORMATS[weight_format].block_columns)
        arrays |= {f"{weight_format}.blocks": blocks, f"{weight_format}.values": values}
    FIXTURE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FIXTURE, **arrays)


if __name__ == "__main__":
    main()
