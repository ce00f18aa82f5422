"""Kernels that bring weights into their form while they load: types, transposition, the order of
rows, quantisation, GGUF's blocks, and what AWQ and GPTQ store apart.

A piece of a tensor, some of its rows, lies at the beginning of `source`, the staging buffer, in the
bytes of the file. Its description lies in `piece`. The target's buffers are those of the whole
parameter, zero where nothing was written yet: halves of a word are or-ed in. All sizes are known at
run time only, so that a model needs a handful of these kernels.

Bindings: source, piece, report, then the target's buffers. Of weights that do not fit into f16 (or
are not finite), word 0 of `report` u32 (4,) keeps the largest magnitude as bits of an f32.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Literal

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.formats import BLOCK, MATRIX_FORMATS, GgufFormat
from py_engine.kernels.wgsl import kernel_spec

Float = Literal["f32", "f16", "bf16"]
Element = Literal[Float, "u32", "u16"]

GroupPart = Literal["awq_codes", "awq_zeros", "gptq_zeros", "gptq_v2_zeros", "scales"]
"""Parts of a matrix in files of AWQ and GPTQ: `qweight`, `qzeros` and `scales`. GPTQ's files store
a zero less 1, those of its second version do not. GPTQ's `qweight` is only transposed."""

PIECE_WORDS = {
    "PIECE_ROWS": 0,
    "PIECE_COLUMNS": 1,
    "PIECE_FIRST_ROW": 2,
    "PIECE_TO_ROW": 3,
    "PIECE_ROPE_PAIRS": 4,
    "PIECE_KEEP_FIRST": 5,
    "PIECE_KEEP_END": 6,
    "PIECE_WIDTH": 7,
}
PIECE_BYTES = 32
REPORT_BYTES = 16

_WORKGROUP = 256
_GROUPS_X = 16  # an 8B model's layer in one piece has more workgroups than one dimension takes
_ALL_ROWS = 0xFFFFFFFF
_BITS: dict[Element, int] = {"f32": 32, "u32": 32, "f16": 16, "bf16": 16, "u16": 16}


def piece(
    rows: int,
    columns: int,
    *,
    first_row: int = 0,
    to_row: int = 0,
    rope_pairs: int = 0,
    keep: tuple[int, int] = (0, _ALL_ROWS),
    width: int | None = None,
) -> array[int]:
    """Return the words of the buffer `piece`.

    `rows` and `columns` are the piece's as they lie in the target; a piece that is transposed is
    the whole tensor. `first_row` is the number of its first row in the tensor, whose row 0 goes to
    row `to_row` of the target. With `rope_pairs`, the size of a head, rows 0, 1, 2, 3, ... of every
    head go to 0, half, 1, half + 1, .... Rows of the target outside of `keep` (first, end) are
    dropped; `to_row` may be negative then. The target's rows are `width` elements long where that
    is not `columns`, for `convert_spec` only.
    """
    return array(
        "I",
        [
            *(rows, columns, first_row, to_row & _ALL_ROWS, rope_pairs),
            *keep,
            columns if width is None else width,
        ],
    )


def units(spec: KernelSpec, rows: int, columns: int) -> int:
    """Return the `n_tokens` of the dispatch of a piece: one for each thread that has work."""
    per_unit = spec.constants["PER_UNIT"]
    assert isinstance(per_unit, int)
    return rows * -(-columns // per_unit)


def _relay(
    name: str,
    label: str,
    snippets: tuple[str, ...],
    target: tuple[Binding, ...],
    constants: dict[str, int | float | bool | str],
) -> KernelSpec:
    bindings = (
        Binding("source", "read", "array<u32>"),
        Binding("piece", "read", f"array<u32, {PIECE_BYTES // 4}>"),
        Binding("report", "read_write", f"array<atomic<u32>, {REPORT_BYTES // 4}>"),
        *target,
    )
    return kernel_spec(
        name,
        label,
        snippets=("relay", *snippets),
        bindings=bindings,
        constants={
            "WORKGROUP": _WORKGROUP,
            "GROUPS_X": _GROUPS_X,
            **PIECE_WORDS,
            **constants,
        },
        groups_x=_GROUPS_X,
        tokens_per_group=_GROUPS_X * _WORKGROUP,
    )


def _elements(source: Element, decode: str, transposed: bool) -> tuple[str, ...]:
    """Return the snippets that read elements of the source."""
    order = "relay_transposed" if transposed else "relay_rows"
    return (f"relay_bits_{_BITS[source]}", decode, order)


def _shared(name: str) -> Binding:
    """Return a buffer of whose words threads write parts."""
    return Binding(name, "read_write", "array<atomic<u32>>")


def convert_spec(
    source: Element, target: Element, *, transposed: bool = False, add_one: bool = False
) -> KernelSpec:
    """Build the kernel that brings elements into `output`.

    Types that are equal are moved as they are, otherwise a float becomes an f32 or an f16, exact
    or rounded to nearest with ties to even. With `transposed` the source is (columns, rows). With
    `add_one`, to f32 only, 1 is added.
    """
    assert source == target or target in ("f32", "f16")
    assert not add_one or target == "f32"
    wide = "raw" if source in ("f32", "u32") or source == target else source
    narrow = target == "f16" and source != target
    encode = "add_one" if add_one else "f16" if narrow else "raw"
    bits = _BITS[target]
    output = _shared("output") if bits == 16 else Binding("output", "read_write", "array<u32>")
    return _relay(
        "relay",
        f"{source} to {target}",
        (
            *(("halfs_exact",) if narrow else ()),
            *_elements(source, f"relay_decode_{wide}", transposed),
            f"relay_encode_{encode}",
            f"relay_pairs_{bits}",
            "relay_convert",
        ),
        (output,),
        {
            "PER_UNIT": 2,
            "source": source,
            "target": target,
            "transposed": transposed,
            "add_one": add_one,
        },
    )


def quantize_spec(
    source: Float, weight_format: Literal["q4f16_1", "q4f32_1"], *, transposed: bool = False
) -> KernelSpec:
    """Build the kernel that quantises rows of floats into `weights` and `scales`.

    The result is that of `group_quantization.quantize`, bit for bit. Columns are a multiple of 32.
    """
    kind = MATRIX_FORMATS[weight_format].scale
    scales = _shared("scales") if kind == "f16" else Binding("scales", "read_write", "array<u32>")
    wide = "raw" if source == "f32" else source
    return _relay(
        "quantize_rows",
        f"{source} to {weight_format}",
        (
            "halfs_exact",
            *_elements(source, f"relay_decode_{wide}", transposed),
            f"quantize_scale_{kind}",
            "quantize_rows",
        ),
        (Binding("weights", "read_write", "array<u32>"), scales),
        {
            "PER_UNIT": BLOCK,
            "source": source,
            "format": weight_format,
            "transposed": transposed,
        },
    )


def pack_spec(weight_format: GgufFormat, columns: int) -> KernelSpec:
    """Build the kernel that lays GGUF's blocks out as the format has them on the GPU.

    Matrices have so many columns.
    """
    form = MATRIX_FORMATS[weight_format]
    assert form.block_bytes is not None
    head = 2 if form.scale else 0
    spare = head + 4 * form.block_words - form.block_bytes
    scales = (_shared("scales"),) if form.scale else ()
    scale = "pack_scale_f16" if form.scale else "pack_scale_none"
    snippets: tuple[str, ...] = (scale, "pack_order_file", "pack_blocks")
    if weight_format == "q4_0":
        snippets = (scale, "q4_0_order", "pack_order_codes", "pack_blocks")
    in_pairs = weight_format == "q4_0" and columns % (2 * form.block_columns) == 0
    if in_pairs:
        scales = (Binding("scales", "read_write", "array<u32>"),)
        snippets = ("q4_0_order", "pack_pairs")
    return _relay(
        "pack_blocks",
        f"{'pairs of ' if in_pairs else ''}blocks of {weight_format}",
        snippets,
        (Binding("weights", "read_write", "array<u32>"), *scales),
        {
            "PER_UNIT": form.block_columns * (2 if in_pairs else 1),
            "BLOCK_COLUMNS": form.block_columns,
            "BLOCK_BYTES": form.block_bytes,
            "BLOCK_WORDS": form.block_words,
            "HEAD_BYTES": head,
            "LAST_MASK": 0xFFFFFFFF >> (8 * spare),
            "format": weight_format,
        },
    )


@dataclass(frozen=True)
class _Group:
    source: tuple[str, ...]
    target: str
    added: int = 0


_PACKED_AWQ = ("relay_bits_4_awq", "relay_packed")
_PACKED_GPTQ = ("relay_bits_4_gptq", "relay_packed")
_HALVES = ("relay_bits_16", "relay_decode_raw", "relay_transposed")
_GROUPS: dict[GroupPart, _Group] = {
    "awq_codes": _Group(_PACKED_AWQ, "4"),
    "awq_zeros": _Group(_PACKED_AWQ, "zero"),
    "gptq_zeros": _Group(_PACKED_GPTQ, "zero", added=1),
    "gptq_v2_zeros": _Group(_PACKED_GPTQ, "zero"),
    "scales": _Group(_HALVES, "scale"),
}


def group_spec(part: GroupPart) -> KernelSpec:
    """Build the kernel that brings a part of an AWQ or GPTQ matrix into a format with zeros.

    The part, in one piece, is (columns, rows) in its file: inputs or groups by outputs, of which
    eight, and of f16 scales one, share an element. Codes go to the buffer `weights`; zeros and
    scales go to `scales`, whose columns are groups. The binding is `output` for either. GPTQ's
    `qweight` is moved with `convert_spec("u32", "u32", transposed=True)`, its columns being words.
    """
    group = _GROUPS[part]
    return _relay(
        "group_part",
        f"{part} of groups",
        (*group.source, "relay_encode_raw", f"relay_pairs_{group.target}", "relay_convert"),
        (_shared("output"),),
        {"PER_UNIT": 2, "ADDED": group.added, "part": part},
    )
