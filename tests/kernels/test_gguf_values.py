"""GGUF's blocks, bit for bit: our reading and the GPU's are equal to PyPI `gguf`'s.

The fixture has its values of random blocks; where it is installed, new blocks are compared too.
"""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.kernels.formats import GGUF_FORMATS, MATRIX_FORMATS, GgufFormat
from py_engine.kernels.reference_formats import matrix_values, packed_blocks
from py_engine.kernels.rows import embed
from tests.kernels.cases import Array, RunKernel, expected_and_found, poisoned
from tests.kernels.make_gguf_blocks import FIXTURE, N_COLUMNS, oracle_values, random_blocks


@pytest.fixture(scope="module")
def fixture() -> dict[str, Array]:
    return dict(np.load(FIXTURE))


def assert_same_bits(found: Array, expected: Array) -> None:
    np.testing.assert_array_equal(
        np.ascontiguousarray(found, np.float32).view(np.uint32).ravel(),
        np.ascontiguousarray(expected, np.float32).view(np.uint32).ravel(),
    )


@pytest.mark.parametrize("weight_format", GGUF_FORMATS)
def test_reading_equals_the_fixture(fixture: dict[str, Array], weight_format: GgufFormat) -> None:
    blocks = fixture[f"{weight_format}.blocks"]
    assert blocks.shape[1] == MATRIX_FORMATS[weight_format].block_bytes
    found = matrix_values(weight_format, 2, N_COLUMNS, packed_blocks(weight_format, blocks))
    assert_same_bits(found, fixture[f"{weight_format}.values"])


@pytest.mark.parametrize("weight_format", GGUF_FORMATS)
def test_reading_equals_gguf_where_it_is_installed(weight_format: GgufFormat) -> None:
    pytest.importorskip("gguf")
    blocks = random_blocks(weight_format, 100)
    blocks[:, 0] ^= 1  # another scale for most formats, and it stays finite
    found = matrix_values(weight_format, 2, N_COLUMNS, packed_blocks(weight_format, blocks))
    assert_same_bits(found, oracle_values(weight_format, blocks))


@pytest.mark.parametrize("weight_format", GGUF_FORMATS)
def test_the_gpu_equals_the_fixture(
    run_kernel: RunKernel, fixture: dict[str, Array], weight_format: GgufFormat
) -> None:
    spec = embed("embed under test", weight_format, 2, N_COLUMNS, max_tokens=2)
    inputs = packed_blocks(weight_format, fixture[f"{weight_format}.blocks"])
    inputs |= {"ids": np.array([0, 1], np.uint32), "output": poisoned(2 * N_COLUMNS)}
    _, found = expected_and_found(run_kernel, spec, inputs, 2)["output"]
    assert_same_bits(found[: 2 * N_COLUMNS], fixture[f"{weight_format}.values"])
