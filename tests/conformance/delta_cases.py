"""Layers of Qwen 3.5's linear attention: their inputs, and what transformers computes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from py_engine.kernels.delta import DeltaShape

Array = np.ndarray
FOLDER = Path(__file__).parent / "fixtures"
N_TOKENS = 70
"""More than one of the chunks of 64 in which transformers takes a prompt."""


@dataclass(frozen=True)
class DeltaCase:
    """A layer's shape and the seed of its inputs."""

    name: str
    shape: DeltaShape
    seed: int

    @property
    def path(self) -> Path:
        """The file of what transformers computes, f32 (tokens, value_heads, value_dim)."""
        return FOLDER / f"{self.name}.npz"

    def inputs(self) -> dict[str, Array]:
        """Return the kernel's inputs, f32: projected has all tokens of the sequence."""
        shape, rng = self.shape, np.random.default_rng(self.seed)
        heads = shape.n_value_heads
        everything = {
            "projected": rng.normal(size=(N_TOKENS, sum(shape.row_blocks))),
            "conv": rng.normal(0, 0.6, (shape.conv_channels, shape.conv_size)),
            # A of at most 1.5: a memory lasts for 1 to 100 tokens.
            "gates": np.stack([np.log(rng.uniform(0.01, 1.5, heads)), rng.normal(0, 1, heads)]),
            "norm": rng.normal(1, 0.3, shape.value_dim),
        }
        return {name: values.astype(np.float32) for name, values in everything.items()}

    def expected(self) -> Array:
        """Return the stored output, f32 (tokens, value_heads, value_dim)."""
        with np.load(self.path) as stored:
            output: Array = stored["output"]
        return output


DELTA_CASES = [
    DeltaCase("gated_delta_grouped", DeltaShape(2, 4, 8, 12, 4, 1e-6), 11),
    DeltaCase("gated_delta_even", DeltaShape(3, 3, 20, 8, 2, 1e-3), 12),
]


def run_transformers(case: DeltaCase) -> tuple[Array, Array]:
    """Return transformers' output for the whole sequence at once, and for it prompt, then steps.

    The first is the chunked delta rule, the second its recurrence and the update of the
    convolution. Every projection is made a selection, so that the layer's input is `projected`.
    Needs torch and transformers.
    """
    import torch
    from transformers import Qwen3_5TextConfig
    from transformers.cache_utils import DynamicCache
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

    shape, inputs = case.shape, case.inputs()
    tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
    config = Qwen3_5TextConfig(
        hidden_size=sum(shape.row_blocks),
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        linear_num_key_heads=shape.n_key_heads,
        linear_num_value_heads=shape.n_value_heads,
        linear_key_head_dim=shape.key_dim,
        linear_value_head_dim=shape.value_dim,
        linear_conv_kernel_dim=shape.conv_size,
        rms_norm_eps=shape.eps,
    )
    layer = Qwen3_5GatedDeltaNet(config, 0)
    selections = torch.split(torch.eye(config.hidden_size), shape.row_blocks)
    names = ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")
    layer.load_state_dict(
        {
            **{f"{name}.weight": rows for name, rows in zip(names, selections, strict=True)},
            "conv1d.weight": tensors["conv"][:, None],
            "A_log": tensors["gates"][0],
            "dt_bias": tensors["gates"][1],
            "norm.weight": tensors["norm"],
            "out_proj.weight": torch.eye(config.hidden_size, shape.output_size),
        }
    )
    x, n_prompt = tensors["projected"][None], N_TOKENS // 2
    cache = DynamicCache(config=config)
    parts = [x[:, :n_prompt], *x[:, n_prompt:].split(1, dim=1)]
    with torch.no_grad():
        at_once = layer(x)
        in_steps = torch.cat([layer(part, cache_params=cache) for part in parts], dim=1)
    size = (N_TOKENS, shape.n_value_heads, shape.value_dim)
    first, second = (y[0, :, : shape.output_size].reshape(size) for y in (at_once, in_steps))
    return first.numpy(), second.numpy()
