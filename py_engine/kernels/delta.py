"""The gated delta rule of linear attention (Yang et al. 2024), as Qwen 3.5 has it.

A value head keeps a matrix `memory` (key_dim, value_dim) instead of keys and values of all tokens.
For each token: a causal convolution of each channel of q, k and v over the last `conv_size` tokens,
and SiLU; q and k scaled to unit length, q also by 1 / sqrt(key_dim); then with
decay = exp(-exp(A_log) softplus(a + dt_bias)) and beta = sigmoid(b)

    memory = decay * memory
    memory += outer(k, beta * (v - k @ memory))
    output = RMSNorm(q @ memory) * norm * silu(z)

Value head h reads query and key head h // (value_heads / key_heads).
"""

from __future__ import annotations

from dataclasses import dataclass

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.wgsl import STATE, STATE_WORDS, kernel_spec

WORKGROUP = 256

VALUE_DIM_MULTIPLE = 4
MAX_VALUE_DIM = 1024


@dataclass(frozen=True)
class DeltaShape:
    """Heads of a layer, their sizes, and the constants of its convolution and its norm.

    `value_dim` is a multiple of 4 and at most 1024; `eps` is added to the mean square.
    """

    n_key_heads: int
    n_value_heads: int
    key_dim: int
    value_dim: int
    conv_size: int
    eps: float

    @property
    def conv_channels(self) -> int:
        """Channels that are convolved: all of q, then k, then v."""
        return 2 * self.n_key_heads * self.key_dim + self.output_size

    @property
    def output_size(self) -> int:
        """Values of a token behind the gate z: what the output projection reads."""
        return self.n_value_heads * self.value_dim

    @property
    def row_blocks(self) -> tuple[int, int, int, int]:
        """Rows of the parts of the fused projection: q|k|v, z, b, a."""
        heads = self.n_value_heads
        return (self.conv_channels, self.output_size, heads, heads)

    @property
    def head_channels(self) -> int:
        """Convolved channels that one value head reads: its query, its key, its value."""
        return 2 * self.key_dim + self.value_dim

    @property
    def history_bytes(self) -> int:
        """Bytes of the projections of the last tokens, of every value head."""
        return 4 * self.n_value_heads * self.head_channels * (self.conv_size - 1)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the matrices of all heads."""
        return 4 * self.n_value_heads * self.key_dim * self.value_dim

    @property
    def workgroup_bytes(self) -> int:
        """Bytes of workgroup memory that the kernel needs."""
        columns = self.value_dim // 4
        slices = WORKGROUP // columns
        # A vec3f takes the room of four floats.
        return 4 * (self.head_channels + 8 * slices * columns + 4 * slices + columns)


def gated_delta(label: str, shape: DeltaShape, max_tokens: int) -> KernelSpec:
    """Build the linear attention of one token or of a chunk of up to `max_tokens`.

    f32: projected (max_tokens, sum of row_blocks); conv (conv_channels, conv_size), oldest tap
    first; gates (2, value_heads), A_log then dt_bias; norm (value_dim,); output (max_tokens,
    value_heads, value_dim). `history` and `memory` hold the sequence so far and are ignored at its
    first position, so they need no clearing. They have no copy of an earlier time: a sequence can
    be continued where it is, or from a copy of both that was made there.
    """
    row = sum(shape.row_blocks)
    return kernel_spec(
        "gated_delta",
        label,
        snippets=("gated_delta",),
        bindings=(
            Binding("projected", "read", f"array<f32, {max_tokens * row}>"),
            Binding("conv", "read", f"array<f32, {shape.conv_channels * shape.conv_size}>"),
            Binding("gates", "read", f"array<f32, {2 * shape.n_value_heads}>"),
            Binding("norm", "read", f"array<vec4f, {shape.value_dim // 4}>"),
            STATE,
            Binding("history", "read_write", f"array<f32, {shape.history_bytes // 4}>"),
            Binding("memory", "read_write", f"array<vec4f, {shape.memory_bytes // 16}>"),
            Binding("output", "read_write", f"array<vec4f, {max_tokens * shape.output_size // 4}>"),
        ),
        constants={
            "N_KEY_HEADS": shape.n_key_heads,
            "N_VALUE_HEADS": shape.n_value_heads,
            "KEY_DIM": shape.key_dim,
            "VALUE_DIM": shape.value_dim,
            "CONV_SIZE": shape.conv_size,
            "EPSILON": float(shape.eps),
            "KEY_SCALE": float(shape.key_dim**-0.5),
            "WORKGROUP": WORKGROUP,
            **STATE_WORDS,
        },
        groups_x=shape.n_value_heads,
    )
