"""Variants of decode's product with q4f16_1 weights, written out for their constants.

All compute y = W (x * norm) / rms(x), or y = W x without a norm. A team of `split` subgroups has
`rows` rows of the matrix; its lanes take blocks of 32 columns in turn, `unroll` of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.formats import BLOCK, MATRIX_FORMATS
from py_engine.kernels.gemv import MAX_GROUPS
from py_engine.kernels.wgsl import SUBGROUP_DIRECTIVES, kernel_spec
from py_engine.tooling.gpu_bench.random_data import with_source

Input = Literal["storage", "staged", "packed"]
"""Where x is read from: storage; workgroup memory, normed and in the weights' order; or the same as
integers of 8 bits with a scale a block, for integer dot products."""

Math = Literal["centred", "sums"]
"""How the codes' zero, 7, is taken off: from every code, or as 7 times the sum of x at the end of a
block."""

EPSILON = 1e-5


@dataclass(frozen=True)
class Variant:
    """One way to compute the product; `str` names it."""

    rows: int = 4
    workgroup: int = 64
    split: int = 1
    unroll: int = 1
    input: Input = "storage"
    math: Math = "centred"

    def __str__(self) -> str:
        name = f"R{self.rows} W{self.workgroup} {self.input}"
        name += f" split{self.split}" if self.split > 1 else ""
        name += f" unroll{self.unroll}" if self.unroll > 1 else ""
        return name + (" sums" if self.math == "sums" else "")

    def fits(self, columns: int, lanes: int, workgroup_bytes: int) -> bool:
        """Return whether an adapter can run it for a matrix of so many columns."""
        staged = {
            "storage": 0,
            "staged": 4 * columns + columns // 8,
            "packed": columns + columns // 4,
        }
        needed = staged[self.input] + 4 * self.workgroup // lanes * (self.rows + 1)
        return self.workgroup >= lanes * self.split and needed <= workgroup_bytes


def variants() -> Iterator[Variant]:
    """Yield the variants that are worth a measurement, each once, the plain ones first."""
    seen = set()
    for variant in _all():
        if variant not in seen:
            seen.add(variant)
            yield variant


def _all() -> Iterator[Variant]:
    for rows in (1, 2, 4, 8):
        for workgroup in (64, 32, 128, 256):
            yield Variant(rows, workgroup)
    for rows in (1, 2, 4):
        for split in (2, 4):
            yield Variant(rows, 32 * split, split)
        yield Variant(rows, 256, 4)
        yield Variant(rows, 64, unroll=2)
        yield Variant(rows, 128, 2, unroll=2)
    for rows in (1, 2, 4, 8):
        for workgroup in (64, 128, 256):
            yield Variant(rows, workgroup, input="staged")
            yield Variant(rows, workgroup, input="packed")
    for rows in (2, 4):
        yield Variant(rows, 64, math="sums")
        yield Variant(rows, 64, unroll=2, math="sums")
        for input_ in ("staged", "packed"):
            yield Variant(rows, 128, unroll=2, input=input_)
            yield Variant(rows, 128, 4, input=input_)
            yield Variant(rows, 256, 2, input=input_)
        yield Variant(rows, 128, input="staged", math="sums")
        yield Variant(rows, 256, unroll=2, input="staged", math="sums")


def gemv_variant(
    variant: Variant, rows: int, columns: int, lanes: int, *, norm: bool
) -> KernelSpec:
    """Build a variant for subgroups of exactly `lanes`.

    Bindings: weights, scales, x f32 (columns,), norm f32 (columns,) if any, output f32 (rows,).
    """
    teams = variant.workgroup // lanes // variant.split
    groups = -(-rows // (teams * variant.rows))
    height = -(-groups // MAX_GROUPS)
    width = -(-groups // height)
    fours = f"array<vec4f, {columns // 4}>"
    weight_format = MATRIX_FORMATS["q4f16_1"]
    spec = kernel_spec(
        "gemv variant",
        str(variant),
        snippets=("block", *weight_format.snippets, "input_block"),
        bindings=(
            *weight_format.bindings(rows, columns),
            Binding("x", "read", fours),
            *((Binding("norm", "read", fours),) if norm else ()),
            Binding("output", "read_write", f"array<f32, {rows}>"),
        ),
        constants={
            "ROWS": rows,
            "COLUMNS": columns,
            "BLOCKS": columns // BLOCK,
            "WORKGROUP": variant.workgroup,
            "LANES": lanes,
            "R": variant.rows,
            "SPLIT": variant.split,
            "TEAMS": teams,
            "GROUPS_X": width,
            "EPSILON": EPSILON,
        },
        groups_x=width,
        groups_y=height,
        directives=SUBGROUP_DIRECTIVES,
    )
    return with_source(spec, _NORMED[norm] + _INPUTS[variant.input] + _main(variant, norm))


_NORMED = {
    False: """
fn normed(raw: Block, block: u32) -> Block { return raw; }
""",
    True: """
fn normed(raw: Block, block: u32) -> Block {
  let i = block * 8u;
  return multiply_blocks(raw, Block(norm[i], norm[i + 1u], norm[i + 2u], norm[i + 3u],
                                    norm[i + 4u], norm[i + 5u], norm[i + 6u], norm[i + 7u]));
}
""",
}

_SUM = """
fn block_sum(v: Block) -> f32 {
  return dot(v.a + v.b + v.c + v.d + v.e + v.f + v.g + v.h, vec4f(1.0));
}
"""

_STAGE = """
var<workgroup> squares_of: array<f32, WORKGROUP / LANES>;

// Brings x to workgroup memory; returns the sum of its squares.
fn stage(thread: u32, subgroup: u32) -> f32 {
  var squares = 0.0;
  for (var block = thread; block < BLOCKS; block += WORKGROUP) {
    let raw = input_block(0u, block);
    squares += dot_blocks(raw, raw);
    keep(block, arrange(normed(raw, block)));
  }
  squares_of[subgroup] = subgroupAdd(squares);
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < WORKGROUP / LANES; i++) { total += squares_of[i]; }
  return total;
}
"""

_INPUTS: dict[Input, str] = {
    "storage": _SUM,
    "staged": _SUM
    + """
var<workgroup> staged: array<vec4f, BLOCKS * 8u>;
var<workgroup> staged_sums: array<f32, BLOCKS>;

// Part i of all blocks lies together, so that lanes read neighbours.
fn keep(block: u32, v: Block) {
  staged[block] = v.a;
  staged[BLOCKS + block] = v.b;
  staged[2u * BLOCKS + block] = v.c;
  staged[3u * BLOCKS + block] = v.d;
  staged[4u * BLOCKS + block] = v.e;
  staged[5u * BLOCKS + block] = v.f;
  staged[6u * BLOCKS + block] = v.g;
  staged[7u * BLOCKS + block] = v.h;
  staged_sums[block] = block_sum(v);
}

fn kept(block: u32) -> Block {
  return Block(staged[block], staged[BLOCKS + block], staged[2u * BLOCKS + block],
               staged[3u * BLOCKS + block], staged[4u * BLOCKS + block],
               staged[5u * BLOCKS + block], staged[6u * BLOCKS + block],
               staged[7u * BLOCKS + block]);
}
"""
    + _STAGE,
    "packed": """
struct Packed { low: vec4u, high: vec4u, scale: f32, sum: i32 }
var<workgroup> packed_low: array<vec4u, BLOCKS>;
var<workgroup> packed_high: array<vec4u, BLOCKS>;
var<workgroup> packed_scale: array<f32, BLOCKS>;
var<workgroup> packed_sum: array<i32, BLOCKS>;

fn most(v: vec4f) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }

fn packed4(v: vec4f) -> u32 { return pack4xI8(vec4i(round(v))); }

fn keep(block: u32, v: Block) {
  let amax = most(max(max(max(abs(v.a), abs(v.b)), max(abs(v.c), abs(v.d))),
                      max(max(abs(v.e), abs(v.f)), max(abs(v.g), abs(v.h)))));
  let f = select(0.0, 127.0 / amax, amax > 0.0);
  let low = vec4u(packed4(f * v.a), packed4(f * v.b), packed4(f * v.c), packed4(f * v.d));
  let high = vec4u(packed4(f * v.e), packed4(f * v.f), packed4(f * v.g), packed4(f * v.h));
  packed_low[block] = low;
  packed_high[block] = high;
  packed_scale[block] = amax / 127.0;
  let ones = 0x01010101u;
  packed_sum[block] = dot4I8Packed(low.x, ones) + dot4I8Packed(low.y, ones)
      + dot4I8Packed(low.z, ones) + dot4I8Packed(low.w, ones)
      + dot4I8Packed(high.x, ones) + dot4I8Packed(high.y, ones)
      + dot4I8Packed(high.z, ones) + dot4I8Packed(high.w, ones);
}

fn kept(block: u32) -> Packed {
  return Packed(packed_low[block], packed_high[block], packed_scale[block], packed_sum[block]);
}

fn packed_dot(w: vec4u, x: Packed) -> f32 {
  let even = w & vec4u(0x0F0F0F0Fu);
  let odd = (w >> vec4u(4u)) & vec4u(0x0F0F0F0Fu);
  let sum = dot4I8Packed(even.x, x.low.x) + dot4I8Packed(odd.x, x.low.y)
      + dot4I8Packed(even.y, x.low.z) + dot4I8Packed(odd.y, x.low.w)
      + dot4I8Packed(even.z, x.high.x) + dot4I8Packed(odd.z, x.high.y)
      + dot4I8Packed(even.w, x.high.z) + dot4I8Packed(odd.w, x.high.w);
  return x.scale * f32(sum - 7 * x.sum);
}
"""
    + _STAGE,
}


def _main(variant: Variant, norm: bool) -> str:
    rows, unroll = range(variant.rows), range(variant.unroll)
    is_staged = variant.input != "storage"
    lines = [
        f"var<workgroup> partial: array<f32, {variant.workgroup}>;" if variant.split > 1 else "",
        _SUMS if variant.math == "sums" else "",
        "@compute @workgroup_size(WORKGROUP)",
        "fn main(@builtin(workgroup_id) group: vec3u,",
        "        @builtin(local_invocation_index) thread: u32,",
        "        @builtin(subgroup_id) subgroup: u32,",
        "        @builtin(subgroup_invocation_id) lane: u32) {",
        "  let team = (group.y * GROUPS_X + group.x) * TEAMS + subgroup / SPLIT;",
        "  let first = team * R;",
        "  let stride = LANES * SPLIT;",
        "  let start = subgroup % SPLIT * LANES + lane;",
        "  var squares = stage(thread, subgroup);" if is_staged else "  var squares = 0.0;",
        *(f"  let row{r} = min(first + {r}u, ROWS - 1u);" for r in rows),
        *(f"  var y{r} = 0.0;" for r in rows),
        f"  for (var at = start; at < BLOCKS; at += {variant.unroll}u * stride) {{",
    ]
    for u in unroll:
        # Past the end the last block once more, with a weight of 0.
        lines.append(f"    let block{u} = min(at + {u}u * stride, BLOCKS - 1u);")
        here = f"select(0.0, 1.0, at + {u}u * stride < BLOCKS)" if u else "1.0"
        lines.append(f"    let here{u} = {here};")
        for r in rows:
            lines.append(f"    let w{u}_{r} = weights[row{r} * BLOCKS + block{u}];")
            lines.append(f"    let s{u}_{r} = here{u} * scale_at(row{r} * BLOCKS + block{u});")
    for u in unroll:
        if is_staged:
            lines.append(f"    let v{u} = kept(block{u});")
        else:
            lines.append(f"    let raw{u} = input_block(0u, block{u});")
            lines.append(f"    let v{u} = arrange(normed(raw{u}, block{u}));")
            if norm:
                lines.append(f"    squares += here{u} * dot_blocks(raw{u}, raw{u});")
        if variant.math == "sums":
            total = f"staged_sums[block{u}]" if is_staged else f"block_sum(v{u})"
            lines.append(f"    let sum{u} = 7.0 * {total};")
        lines += [f"    y{r} += s{u}_{r} * {_dot(variant, u, r)};" for r in rows]
    lines.append("  }")
    lines += [f"  y{r} = subgroupAdd(y{r});" for r in rows]
    if norm and not is_staged:
        lines.append("  squares = subgroupAdd(squares);")
    if variant.split > 1:
        lines += _combined(variant, norm and not is_staged)
    finish = "first + lane < ROWS" + (" && subgroup % SPLIT == 0u" if variant.split > 1 else "")
    scale = "inverseSqrt(squares / f32(COLUMNS) + EPSILON)" if norm else "1.0"
    lines.append(f"  let scale = {scale};")
    lines += [
        f"  if (lane == {r % 4}u && {finish.replace('lane', f'{r}u')}) "
        f"{{ output[first + {r}u] = scale * y{r}; }}"
        for r in rows
    ]
    return "\n".join([*lines, "}", ""])


_SUMS = """
fn code_dot(w: vec4u, v: Block) -> f32 {
  return dot_blocks(Block(even_codes(w.x, 0.0), odd_codes(w.x, 0.0),
                          even_codes(w.y, 0.0), odd_codes(w.y, 0.0),
                          even_codes(w.z, 0.0), odd_codes(w.z, 0.0),
                          even_codes(w.w, 0.0), odd_codes(w.w, 0.0)), v);
}
"""


def _dot(variant: Variant, u: int, r: int) -> str:
    weights, x = f"w{u}_{r}", f"v{u}"
    if variant.input == "packed":
        return f"packed_dot({weights}, {x})"
    if variant.math == "sums":
        return f"(code_dot({weights}, {x}) - sum{u})"
    codes = (f"{kind}_codes({weights}.{word}, 7.0)" for word in "xyzw" for kind in ("even", "odd"))
    return f"dot_blocks(Block({', '.join(codes)}), {x})"


def _combined(variant: Variant, adds_squares: bool) -> list[str]:
    """Add up what a team's subgroups have, through workgroup memory."""
    names = [f"y{r}" for r in range(variant.rows)] + (["squares"] if adds_squares else [])
    lines = ["  if (lane == 0u) {"]
    lines += [f"    partial[subgroup * {len(names)}u + {i}u] = {n};" for i, n in enumerate(names)]
    lines += ["  }", "  workgroupBarrier();"]
    for i, name in enumerate(names):
        parts = (
            f"partial[(subgroup / SPLIT * SPLIT + {s}u) * {len(names)}u + {i}u]"
            for s in range(variant.split)
        )
        lines.append(f"  {name} = {' + '.join(parts)};")
    return lines
