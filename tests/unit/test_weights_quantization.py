"""MLC's weight formats: exact small cases, error bounds, and bfloat16 rounding."""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.kernels.formats import MlcFormat, WeightFormat
from py_engine.weights.quantization import (
    bf16_from_f32,
    dequantize,
    f32_from_bf16,
    quantize,
    round_to_storage,
    stored_matrix,
    stored_value,
)

Q4: list[MlcFormat] = ["q4f16_1", "q4f32_1"]


def random_matrix(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows * 1000 + columns).standard_normal((rows, columns), np.float32)


def test_codes_lie_in_mlc_order() -> None:
    # One group whose scale is 1: codes are the values plus 7, the first in the lowest bits.
    row = np.array([[-7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 0] + [0] * 16], np.float32)
    words, scale = quantize(row, "q4f16_1")
    assert scale.tolist() == [[1.0]]
    assert words[0].tolist() == [0x76543210, 0x7EDCBA98, 0x77777777, 0x77777777]
    assert dequantize(words, scale, 32).tolist() == row.tolist()


@pytest.mark.parametrize("weight_format", Q4)
@pytest.mark.parametrize("columns", [32, 64, 96, 40])
def test_error_is_at_most_half_a_step(weight_format: MlcFormat, columns: int) -> None:
    weight = random_matrix(5, columns)
    words, scale = quantize(weight, weight_format)
    n_groups = -(-columns // 32)
    assert words.shape == (5, 4 * n_groups)
    assert words.dtype == np.uint32
    assert scale.shape == (5, n_groups)
    step = np.repeat(scale, 32, axis=1)[:, :columns]
    # A scale rounded down leaves the group's largest weight beyond code 14 by its rounding.
    slack = 7 * 2.0**-8
    assert np.all(np.abs(dequantize(words, scale, columns) - weight) <= (0.5 + slack) * step)


@pytest.mark.parametrize("weight_format", [*Q4, "q3f16_1"])
def test_quantised_values_are_a_fixed_point(weight_format: MlcFormat) -> None:
    once = stored_value(random_matrix(8, 64), weight_format)
    words, scale = quantize(once, weight_format)
    again = dequantize(words, scale, 64, weight_format)
    np.testing.assert_allclose(again, once, rtol=1e-2)


def test_three_bits_lie_in_mlc_order() -> None:
    # Groups of 40 columns, 10 codes a word, whose upper two bits stay clear; codes are values + 3.
    row = np.zeros((1, 50), np.float32)
    row[0, :11] = [-3, -2, -1, 0, 1, 2, 3, 3, 3, 3, -3]
    row[0, 40] = 6
    words, scale = quantize(row, "q3f16_1")
    assert scale.tolist() == [[1.0, 2.0]]
    assert [f"{word:o}" for word in words[0]] == [
        "6666543210", "3333333330", "3333333333", "3333333333",
        "3333333336", "0", "0", "0",
    ]  # fmt: skip
    assert dequantize(words, scale, 50, "q3f16_1").tolist() == row.tolist()


def test_a_scale_below_the_normal_numbers_is_zero() -> None:
    words, scale = quantize(np.full((1, 32), 1e-38, np.float32), "q4f32_1")
    assert scale.tolist() == [[0.0]]
    assert np.all(words == 0x77777777)


def test_group_of_zeros_stays_zero() -> None:
    words, scale = quantize(np.zeros((2, 32), np.float32), "q4f16_1")
    assert not scale.any()
    assert np.all(words == 0x77777777)
    assert not dequantize(words, scale, 32).any()


def test_ragged_tail_has_zero_codes() -> None:
    words, _ = quantize(np.ones((1, 36), np.float32), "q4f16_1")
    assert [hex(word) for word in words[0, 4:]] == ["0xeeee", "0x0", "0x0", "0x0"]


def test_reader_takes_code_15() -> None:
    scale = np.ones((1, 1), np.float32)
    words = np.full((1, 4), 0xFFFFFFFF, np.uint32)
    assert np.all(dequantize(words, scale, 32) == 8.0)


def test_bf16_rounds_to_nearest_even() -> None:
    bits = [0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0xBF80FFFF, 0x7F800000, 0x7F7FFFFF]
    rounded = bf16_from_f32(np.array(bits, np.uint32).view(np.float32))
    assert rounded.tolist() == [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xBF81, 0x7F80, 0x7F80]
    assert f32_from_bf16(rounded)[:2].tolist() == [1.0, 1.0]
    assert np.isnan(f32_from_bf16(bf16_from_f32(np.array([np.nan], np.float32))))[0]


@pytest.mark.parametrize(
    ("weight_format", "names", "dtypes"),
    [
        ("q4f16_1", ["m.q_weight", "m.q_scale"], [("uint32", "raw"), ("float16", "raw")]),
        ("q4f32_1", ["m.q_weight", "m.q_scale"], [("uint32", "raw"), ("float32", "f32-to-bf16")]),
        ("q3f16_1", ["m.q_weight", "m.q_scale"], [("uint32", "raw"), ("float16", "raw")]),
        ("q0f16", ["m.weight"], [("float16", "raw")]),
        ("q0f32", ["m.weight"], [("float32", "f32-to-bf16")]),
    ],
)
def test_stored_tensors_of_each_format(
    weight_format: WeightFormat, names: list[str], dtypes: list[tuple[str, str]]
) -> None:
    stored = stored_matrix("m", random_matrix(3, 64), weight_format)
    assert [tensor.name for tensor in stored] == names
    assert [(tensor.dtype, tensor.format) for tensor in stored] == dtypes


def test_vectors_are_only_rounded() -> None:
    norm = np.array([1.0001, 0.5], np.float32)
    for weight_format in (*Q4, "q0f16", "q0f32"):
        expected = round_to_storage(norm, weight_format)
        assert np.array_equal(stored_value(norm, weight_format), expected)
