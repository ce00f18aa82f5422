"""The table of weight formats: what a matrix takes on the GPU, and what kernels bind of it."""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.kernels.formats import GGUF_FORMATS, MATRIX_FORMATS, WeightFormat
from py_engine.kernels.gemm import gemm
from py_engine.kernels.gemv import gemv
from py_engine.kernels.norm import Norm
from py_engine.kernels.product import Epilogue
from tests.kernels.cases import matrix_inputs

BITS_PER_WEIGHT: dict[WeightFormat, float] = {
    "q4f16_1": 4.5,
    "q4f32_1": 5,
    "q3f16_1": 3.6,
    "q0f16": 16,
    "q0bf16": 16,
    "q0f32": 32,
    "q4_0": 4.5,
    "q4_1": 5,
    "q5_0": 5.5,
    "q5_1": 6,
    "q8_0": 8.5,
    "q2_k": 2.625,
    "q3_k": 3.5,
    "q4_k": 4.5,
    "q5_k": 5.5,
    "q6_k": 6.625,
    "q4g32": 5,
    "q4g64": 4.5,
    "q4g128": 4.25,
}


def test_bits_of_a_weight() -> None:
    columns = 1280  # whole blocks of every format
    found = {
        name: 8 * sum(form.buffer_bytes(6, columns).values()) / (6 * columns)
        for name, form in MATRIX_FORMATS.items()
    }
    assert found == BITS_PER_WEIGHT


@pytest.mark.parametrize("weight_format", MATRIX_FORMATS)
def test_buffers_are_as_large_as_their_bytes_say(weight_format: WeightFormat) -> None:
    form = MATRIX_FORMATS[weight_format]
    columns = 3 * form.column_multiple
    sizes = form.buffer_bytes(5, columns)
    assert [binding.name for binding in form.bindings(5, columns)] == list(sizes)
    inputs = matrix_inputs(np.random.default_rng(0), weight_format, 5, columns)
    assert {name: -(-data.nbytes // 4) * 4 for name, data in inputs.items()} == sizes


def test_gguf_blocks_grow_by_less_than_a_word() -> None:
    for name in GGUF_FORMATS:
        form = MATRIX_FORMATS[name]
        assert form.block_bytes is not None
        on_the_gpu = 4 * form.block_words + (2 if form.scale else 0)
        assert 0 <= on_the_gpu - form.block_bytes < 4
        assert form.column_multiple == form.block_columns


def test_a_group_of_40_columns_need_not_be_whole() -> None:
    form = MATRIX_FORMATS["q3f16_1"]
    assert form.column_multiple == 32
    assert form.buffer_bytes(3, 64) == {"weights": 3 * 2 * 16, "scales": 12}


@pytest.mark.parametrize("weight_format", MATRIX_FORMATS)
def test_no_product_needs_more_than_eight_buffers(weight_format: WeightFormat) -> None:
    everything = Epilogue(
        bias=True, activation="gelu_tanh", gated=True, soft_cap=30.0, residual=True
    )
    norm = Norm("layer", 1e-5, bias=True)
    step = gemv("step", weight_format, 64, 1280, epilogue=everything, norm=norm)
    chunk = gemm("chunk", weight_format, 64, 1280, 8, epilogue=everything)
    assert max(len(step.bindings), len(chunk.bindings)) <= 8
