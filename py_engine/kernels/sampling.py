"""The draw of the next token on the GPU."""

from __future__ import annotations

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.wgsl import STATE_RW, STATE_WORDS, kernel_spec

_WORKGROUP = 256


def sample(label: str, vocabulary: int) -> KernelSpec:
    """Build the kernel that draws a token from logits f32 (vocabulary,) and advances `state`.

    `sampling` is the struct (temperature f32, top_p f32, seed u32 x 2). The same logits, seed and
    step give the same token. Ties at the top_p border are all kept; the greedy choice among equal
    logits is the lowest id. `probabilities` is scratch of the logits' shape.
    """
    return kernel_spec(
        "sample",
        label,
        snippets=("sampling_params", "sample"),
        bindings=(
            Binding("logits", "read", f"array<f32, {vocabulary}>"),
            Binding("sampling", "read", "Sampling"),
            Binding("probabilities", "read_write", f"array<f32, {vocabulary}>"),
            STATE_RW,
        ),
        constants={"VOCABULARY": vocabulary, "WORKGROUP": _WORKGROUP, **STATE_WORDS},
        groups_x=1,
    )
