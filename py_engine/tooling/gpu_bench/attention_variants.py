"""A prototype of decode's attention that shares the keys out among workgroups (split-KV)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.attention import _bindings, _constants, _snippets
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.kernels.wgsl import SUBGROUP_DIRECTIVES, kernel_spec
from py_engine.tooling.gpu_bench.random_data import with_source

_FOLDER = Path(__file__).parent

_KEYS_PER_SPLIT = """
fn keys_per_split(n_keys: u32) -> u32 {
  let even = (n_keys + SPLITS - 1u) / SPLITS;
  return max(LEAST_KEYS, (even + 15u) / 16u * 16u);
}
"""

_LEAVE_RESULT = """
fn leave(head: u32, split: u32, i: u32, sum: vec4f, highest: f32, denominator: f32) {
  output[head * HEAD4 + i] = output_of(sum / denominator, 0u, head, i);
}
"""

_LEAVE_PART = """
fn leave(head: u32, split: u32, i: u32, sum: vec4f, highest: f32, denominator: f32) {
  split_sums[(head * SPLITS + split) * HEAD4 + i] = sum;
  if (i == 0u) { split_softmax[head * SPLITS + split] = vec2f(highest, denominator); }
}
"""

_DECODE: Mapping[str, Literal["read", "read_write"]] = {
    "qkv": "read",
    "rope": "read",
    "state": "read",
    "k_cache": "read_write",
    "v_cache": "read_write",
    "output": "read_write",
}


@dataclass(frozen=True)
class SplitVariant:
    """`splits` workgroups of `threads` for each KV head, each with at least `least_keys` keys."""

    splits: int
    threads: int = 64
    least_keys: int = 16

    def __str__(self) -> str:
        return f"split{self.splits} W{self.threads} least{self.least_keys}"

    def fits(self, shape: AttentionShape, workgroup_bytes: int) -> bool:
        """Return whether an adapter can run it."""
        n_rep, fours = shape.n_heads // shape.n_kv_heads, shape.head_dim // 4
        outputs = n_rep * fours
        needed = 16 * (outputs + self.threads // fours * outputs) + 4 * n_rep * self.threads * 2
        return self.threads % fours == 0 and needed <= workgroup_bytes


def attention_split(shape: AttentionShape, variant: SplitVariant, lanes: int) -> list[KernelSpec]:
    """Build the kernel, and the one that joins its parts where there are several.

    For attention without norms of q and k, windows and gates. Bindings: those of
    `attention_decode`, but with several parts `split_sums` and `split_softmax` instead of the
    output; then these three and `state`.
    """
    constants = {
        **_constants(shape),
        "SPLITS": variant.splits,
        "THREADS": variant.threads,
        "LANES": lanes,
        "LEAST_KEYS": variant.least_keys if variant.splits > 1 else 1 << 30,
    }
    bindings = _bindings(shape, 1, _DECODE)
    parts = shape.n_heads * variant.splits
    split_types = {
        "split_sums": f"array<vec4f, {parts * shape.head_dim // 4}>",
        "split_softmax": f"array<vec2f, {parts}>",
    }
    splits = variant.splits > 1
    if splits:
        bindings = (
            *bindings[:-1],
            *(Binding(name, "read_write", kind) for name, kind in split_types.items()),
        )
    snippets = _snippets(shape, cooperative=True)
    split = kernel_spec(
        "attention split",
        str(variant),
        snippets=snippets,
        bindings=bindings,
        constants=constants,
        groups_x=shape.heads_in_cache,
        groups_y=variant.splits,
        directives=SUBGROUP_DIRECTIVES,
    )
    leave = _LEAVE_PART if splits else _LEAVE_RESULT
    specs = [with_source(split, _KEYS_PER_SPLIT + leave + _text("attention_split"))]
    if not splits:
        return specs
    state, output = _bindings(shape, 1, {"state": "read", "output": "read_write"})
    combine = kernel_spec(
        "attention combine",
        f"{variant} combine",
        snippets=("attention_heads", "cache_whole", "output_plain"),
        bindings=(
            *(Binding(name, "read", kind) for name, kind in split_types.items()),
            state,
            output,
        ),
        constants=constants | {"THREADS": 64},
        groups_x=-(-shape.n_heads * shape.head_dim // 4 // 64),
    )
    return [*specs, with_source(combine, _KEYS_PER_SPLIT + _text("attention_combine"))]


def _text(name: str) -> str:
    return (_FOLDER / f"{name}.wgsl").read_text(encoding="utf-8")
