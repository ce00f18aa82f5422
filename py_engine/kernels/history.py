"""The tokens of a sequence so far, kept on the GPU for models that may compute them again.

`history` is u32 (context,), the token at every position.
"""

from __future__ import annotations

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.wgsl import STATE, STATE_WORDS, kernel_spec

_WORKGROUP = 64


def remember(label: str, context: int) -> KernelSpec:
    """Build the kernel that writes the token drawn last to `state`'s position."""
    return kernel_spec(
        "remember",
        label,
        snippets=("remember",),
        bindings=(STATE, Binding("history", "read_write", f"array<u32, {context}>")),
        constants={**STATE_WORDS},
        groups_x=1,
    )


def recall(label: str, context: int, max_tokens: int) -> KernelSpec:
    """Build the copy of `state`'s number of tokens from its position on.

    `tokens` is u32 (max_tokens,), where a prefill chunk's tokens lie.
    """
    return kernel_spec(
        "recall",
        label,
        snippets=("recall",),
        bindings=(
            Binding("history", "read", f"array<u32, {context}>"),
            STATE,
            Binding("tokens", "read_write", f"array<u32, {max_tokens}>"),
        ),
        constants={"WORKGROUP": _WORKGROUP, **STATE_WORDS},
        groups_x=-(-max_tokens // _WORKGROUP),
    )
