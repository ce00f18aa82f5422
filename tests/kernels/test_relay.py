"""Kernels that bring weights into their form while they load: all bits equal NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.formats import GGUF_FORMATS, MATRIX_FORMATS, GgufFormat, WeightFormat
from py_engine.kernels.group_quantization import bf16_from_f32, quantize, stored_scale
from py_engine.kernels.reference_formats import matrix_values, packed_blocks
from py_engine.kernels.relay import (
    Element,
    Float,
    convert_spec,
    group_spec,
    pack_spec,
    piece,
    quantize_spec,
    units,
)
from tests.kernels.cases import Array, RunKernel, expected_and_found, gguf_blocks, poisoned


def stored(values: Array, kind: Element) -> Array:
    """Return values as a file stores them."""
    match kind:
        case "f16":
            return values.astype(np.float16)
        case "bf16":
            return bf16_from_f32(values)
        case "u16" | "u32":
            return values.view(np.uint32).astype(np.uint16 if kind == "u16" else np.uint32)
    return values


def relayed(
    run_kernel: RunKernel,
    spec: KernelSpec,
    source: Array,
    words: Array,
    targets: dict[str, Array],
) -> dict[str, Array]:
    """Run a kernel over a piece; return what it wrote after comparing it with its reference."""
    inputs = {"source": source, "piece": words, "report": np.zeros(4, np.uint32), **targets}
    n_units = units(spec, *words[:2].tolist())
    written = expected_and_found(run_kernel, spec, inputs, n_units)
    for name, (expected, found) in written.items():
        np.testing.assert_array_equal(expected.view(np.uint32), found.view(np.uint32), name)
    return {name: found for name, (_, found) in written.items()}


CONVERSIONS: list[tuple[Element, Element, bool, bool]] = [
    ("f16", "f32", False, False),
    ("bf16", "f32", True, False),
    ("f32", "f16", False, False),
    ("bf16", "f16", True, False),
    ("f32", "f32", False, True),
    ("bf16", "f32", False, True),
    ("u32", "u32", True, False),
    ("u16", "u16", True, False),
    ("bf16", "bf16", False, False),
]
"""Stored and wanted type, transposed, add one."""


@pytest.mark.parametrize(("source", "target", "transposed", "add_one"), CONVERSIONS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (6, 7), (70, 96)])
def test_convert(
    run_kernel: RunKernel,
    source: Element,
    target: Element,
    transposed: bool,
    add_one: bool,
    rows: int,
    columns: int,
) -> None:
    values = np.random.default_rng(rows).normal(0, 10, (rows, columns)).astype(np.float32)
    spec = convert_spec(source, target, transposed=transposed, add_one=add_one)
    words = np.array(piece(rows, columns, to_row=3), np.uint32)
    is_half = target in ("f16", "bf16", "u16")
    size = (rows + 4) * columns
    output = np.zeros(size + size % 2, np.uint16) if is_half else poisoned(size)
    raw = stored(values, source)
    found = relayed(
        run_kernel, spec, raw.T.copy() if transposed else raw, words, {"output": output}
    )
    kind = raw.dtype if source == target else np.dtype(target.replace("f", "float"))
    rows_found = found["output"].view(kind)[3 * columns : (rows + 3) * columns]
    widened = (raw.astype(np.uint32) << 16).view(np.float32) if source == "bf16" else raw
    wanted = raw if source == target and not add_one else widened.astype(kind)
    np.testing.assert_array_equal(rows_found.reshape(rows, columns), wanted + kind.type(add_one))


def test_convert_rounds_to_even_and_reports_what_is_too_large(run_kernel: RunKernel) -> None:
    # Ties of normal and of subnormal halves, the least of either, and the border of overflow.
    least = 2.0**-24
    values = [1 + 2**-11, 1 + 3 * 2**-11, 2047.5, least / 2, least * 1.5, least * 2.5, least * 0.51]
    values += [2.0**-14, 2.0**-14 - least / 2, 1e-30, 0.0, -0.0, 65519.9, -1 - 2**-11, 3e-8, 6e-5]
    fitting = np.array(values, np.float32).reshape(1, -1)
    spec = convert_spec("f32", "f16")
    words = np.array(piece(1, fitting.size), np.uint32)
    output = np.zeros(fitting.size, np.uint16)
    found = relayed(run_kernel, spec, fitting, words, {"output": output})
    np.testing.assert_array_equal(
        found["output"].view(np.uint16)[: fitting.size],
        fitting.astype(np.float16).view(np.uint16)[0],
    )
    assert not found["report"][:4].any()
    large = np.array([[1.0, -65520.0, 70000.0, 2.0]], np.float32)
    words = np.array(piece(1, 4), np.uint32)
    found = relayed(run_kernel, spec, large, words, {"output": np.zeros(4, np.uint16)})
    assert found["report"][:1].view(np.float32)[0] == 70000.0


def test_rows_outside_of_the_kept_ones_are_dropped(run_kernel: RunKernel) -> None:
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    words = np.array(piece(10, 4, to_row=-3, keep=(1, 5)), np.uint32)
    found = relayed(
        run_kernel, convert_spec("f32", "f32"), values, words, {"output": poisoned(6 * 4)}
    )
    rows = found["output"][: 6 * 4].view(np.float32).reshape(6, 4)
    np.testing.assert_array_equal(rows[1:5], values[4:8])
    assert np.isnan(rows[[0, 5]]).all()


def test_pairs_of_rope_become_halves(run_kernel: RunKernel) -> None:
    # The second of two heads of 6 rows comes in a piece of its own.
    values = np.arange(12 * 2, dtype=np.float16).reshape(12, 2)
    words = np.array(piece(6, 2, first_row=6, to_row=1, rope_pairs=6), np.uint32)
    output = np.zeros(13 * 2, np.uint16)
    found = relayed(run_kernel, convert_spec("f16", "f16"), values[6:], words, {"output": output})
    rows = found["output"].view(np.float16)[: 13 * 2].reshape(13, 2)
    np.testing.assert_array_equal(rows[7:], values[[6, 8, 10, 7, 9, 11]])
    assert not rows[:7].any()


def weights_to_quantize(rows: int, columns: int) -> Array:
    """Return weights with what decides a rounding: ties, zeros, tiny and large groups."""
    rng = np.random.default_rng(rows * columns)
    weights = rng.normal(0, 0.05, (rows, columns)).astype(np.float32)
    groups = weights.reshape(-1, 32)
    groups *= 10.0 ** rng.integers(-9, 4, (len(groups), 1)).astype(np.float32)
    groups[0] = 0
    groups[1, :16] = 7 * np.float32(0.25)
    groups[1, 16:] = np.float32(0.25) * (np.arange(16) - 7.5)  # ties between all codes
    groups[2] = 1e-38
    groups[3::5] = bf16_from_f32(groups[3::5]).astype(np.uint32).__lshift__(16).view(np.float32)
    for group in groups[4::5]:  # on a middle of the stored scale, and one number beside it
        scale = stored_scale(np.abs(group[:1]) / np.float32(7), "q4f16_1")
        middles = scale * (np.arange(14) - 6.5).astype(np.float32)
        group[:] = np.clip(group, -abs(group[0]), abs(group[0]))
        group[1:15] = np.nextafter(middles, np.float32(rng.choice([-9, 0, 9])) * middles)
        group[15:29] = middles
    return weights


@pytest.mark.parametrize("weight_format", ["q4f16_1", "q4f32_1"])
@pytest.mark.parametrize(("source", "transposed"), [("f32", False), ("bf16", False), ("f16", True)])
def test_quantize(
    run_kernel: RunKernel, weight_format: str, source: Float, transposed: bool
) -> None:
    rows, columns = 41, 96
    raw = stored(weights_to_quantize(rows, columns), source)
    spec = quantize_spec(source, weight_format, transposed=transposed)
    words = np.array(piece(rows, columns, to_row=2), np.uint32)
    half = weight_format == "q4f16_1"
    targets = {
        "weights": poisoned(45 * 12),
        "scales": np.zeros(45 * 3 + 1, np.uint16) if half else poisoned(45 * 3),
    }
    found = relayed(run_kernel, spec, raw.T.copy() if transposed else raw, words, targets)
    wide = raw if source == "f32" else (raw.astype(np.uint32) << 16).view(np.float32)
    wide = raw.astype(np.float32) if source == "f16" else wide
    codes, scales = quantize(wide, weight_format)
    np.testing.assert_array_equal(found["weights"][2 * 12 : 43 * 12].reshape(rows, 12), codes)
    stored_scales = found["scales"].view(np.float16 if half else np.float32)[6 : 43 * 3]
    np.testing.assert_array_equal(stored_scales.reshape(rows, 3), scales)
    assert not found["report"][:4].any()


@pytest.mark.parametrize(("weight_format", "largest"), [("q4f16_1", 1e6), ("q4f32_1", np.inf)])
def test_quantize_reports_a_scale_that_does_not_fit(
    run_kernel: RunKernel, weight_format: str, largest: float
) -> None:
    weights = np.ones((2, 32), np.float32)
    weights[1, 5] = -largest
    spec = quantize_spec("f32", weight_format)
    inputs = {
        "source": weights,
        "piece": np.array(piece(2, 32), np.uint32),
        "report": np.zeros(4, np.uint32),
        "weights": np.zeros(8, np.uint32),
        "scales": np.zeros(2, np.uint16 if weight_format == "q4f16_1" else np.uint32),
    }
    with np.errstate(invalid="ignore", over="ignore"):
        expected, found = expected_and_found(run_kernel, spec, inputs, units(spec, 2, 32))["report"]
    np.testing.assert_array_equal(expected[:4], found[:4])
    assert found[:1].view(np.float32)[0] == largest


@pytest.mark.parametrize("row_blocks", [3, 4])
@pytest.mark.parametrize("weight_format", GGUF_FORMATS)
def test_pack_blocks(run_kernel: RunKernel, weight_format: GgufFormat, row_blocks: int) -> None:
    form = MATRIX_FORMATS[weight_format]
    columns = row_blocks * form.block_columns
    blocks = gguf_blocks(np.random.default_rng(5), weight_format, 12, columns)
    per_row = blocks.reshape(12, row_blocks, -1)
    spec = pack_spec(weight_format, columns)
    words = np.array(piece(6, columns, first_row=6, to_row=1, rope_pairs=6), np.uint32)
    targets = {"weights": poisoned(14 * row_blocks * form.block_words)}
    if form.scale:
        targets["scales"] = np.zeros(14 * row_blocks, np.uint16)
    found = relayed(run_kernel, spec, per_row[6:].copy(), words, targets)
    ordered = per_row[[6, 8, 10, 7, 9, 11]].reshape(6 * row_blocks, -1)
    for name, expected in packed_blocks(weight_format, ordered).items():
        at = 7 * row_blocks * expected.shape[1]
        got = found[name].view(expected.dtype)[at : at + expected.size]
        np.testing.assert_array_equal(got, expected.ravel(), name)


def packed_nibbles(codes: Array, order: list[int]) -> Array:
    """Pack codes (rows, columns) as int32 (rows, columns / 8): nibble i is column order[i] of 8."""
    eights = codes.reshape(len(codes), -1, 8)[:, :, order].astype(np.uint32)
    return np.bitwise_or.reduce(eights << (np.arange(8, dtype=np.uint32) * 4), axis=-1)


GROUP_SHAPES = [("q4g128", 16, 384), ("q4g32", 24, 64)]


@pytest.mark.parametrize("kind", ["awq", "gptq", "gptq_v2"])
@pytest.mark.parametrize(("weight_format", "rows", "columns"), GROUP_SHAPES)
def test_matrices_of_awq_and_gptq(
    run_kernel: RunKernel, weight_format: WeightFormat, rows: int, columns: int, kind: str
) -> None:
    # Both store inputs by outputs. AWQ packs 8 outputs a word in the order of its GEMM kernel, GPTQ
    # 8 inputs, but zeros by outputs too, less 1 in its first version.
    rng = np.random.default_rng(rows)
    n_groups = MATRIX_FORMATS[weight_format].row_blocks(columns)
    codes = rng.integers(0, 16, (columns, rows))
    zeros = rng.integers(1, 16, (n_groups, rows))
    scales = rng.uniform(-0.1, 0.1, (n_groups, rows)).astype(np.float16)
    awq, plain = [0, 2, 4, 6, 1, 3, 5, 7], list(range(8))
    if kind == "awq":
        qweight, qzeros = packed_nibbles(codes, awq), packed_nibbles(zeros, awq)
    else:
        qweight = packed_nibbles(codes.T, plain).T.copy()
        qzeros = packed_nibbles(zeros - (kind == "gptq"), plain)

    sizes = MATRIX_FORMATS[weight_format].buffer_bytes(rows, columns)
    matrix = {name: np.zeros(nbytes // 4, np.uint32) for name, nbytes in sizes.items()}

    def load(name: str, spec: KernelSpec, source: Array, width: int) -> None:
        words = np.array(piece(rows, width), np.uint32)
        found = relayed(run_kernel, spec, source, words, {"output": matrix[name]})
        matrix[name] = found["output"][: matrix[name].size].copy()

    if kind == "awq":
        load("weights", group_spec("awq_codes"), qweight, columns)
    else:
        transposed = convert_spec("u32", "u32", transposed=True)
        load("weights", transposed, qweight, columns // 8)
    load("scales", group_spec("scales"), scales, n_groups)
    load("scales", group_spec(f"{kind}_zeros"), qzeros, n_groups)

    wide = np.repeat(np.arange(n_groups), columns // n_groups)
    wanted = (codes - zeros[wide]).astype(np.float32) * scales[wide].astype(np.float32)
    np.testing.assert_array_equal(matrix_values(weight_format, rows, columns, matrix), wanted.T)
