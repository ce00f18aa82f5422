"""A Llama model in plain PyTorch, with the parameter names of ``LlamaForCausalLM``.

Written out so that ``torch.compile`` sees one small graph with an attention that is fast on CPUs.
The rounding to q4f16_1 is here too; the last phase of training looks at the weights through it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 32
"""Group size of q4f16_1 along the input dimension."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the model; the defaults are those of the shipped one."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    def as_dict(self) -> dict[str, int | float]:
        """Return the sizes as a plain dictionary."""
        return asdict(self)


def quantize_dequantize(weight: Tensor) -> Tensor:
    """Round a matrix to q4f16_1 and back (groups of 32 along the last dimension).

    Per group: scale = max|w| / 7 rounded to float16, code = clamp(round(w / scale) + 7, 0, 14),
    value = (code - 7) * scale.
    """
    rows, columns = weight.shape
    groups = weight.float().reshape(rows, columns // GROUP, GROUP)
    scale = (groups.abs().amax(dim=-1, keepdim=True) / 7.0).half().float()
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = torch.clamp(torch.round(groups / safe) + 7.0, 0.0, 14.0)
    return ((codes - 7.0) * scale).reshape(rows, columns)


class Linear(nn.Linear):
    """A linear layer without bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a gain."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension in float32."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight).to(x.dtype)


def rope_tables(config: ModelConfig, length: int) -> tuple[Tensor, Tensor]:
    """Return the cosine and sine tables, each ``[length, head_dim]``."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32), config.rope_theta**-half)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions (half-split layout) to ``[batch, heads, time, head_dim]``."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend causally, chunk of queries by chunk.

    Plain matrix products over ``[batch * kv_heads, group * chunk, head_dim]``; on a CPU this is
    several times faster than the fused kernel at these sizes.
    """
    batch, heads, time, dim = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    chunk = max(128, time // 4)
    q = (q * dim**-0.5).reshape(batch, kv_heads, group, time, dim)
    k, v = k.reshape(batch * kv_heads, time, dim), v.reshape(batch * kv_heads, time, dim)
    outputs = []
    for start in range(0, time, chunk):
        end = min(start + chunk, time)
        rows = end - start
        asked = q[:, :, :, start:end].reshape(batch * kv_heads, group * rows, dim)
        scores = torch.bmm(asked, k[:, :end].transpose(1, 2))
        scores = scores.view(batch * kv_heads, group, rows, end).float()
        hidden = torch.ones(rows, end, dtype=torch.bool, device=q.device).triu(start + 1)
        shares = torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1).to(v.dtype)
        mixed = torch.bmm(shares.view(batch * kv_heads, group * rows, end), v[:, :end])
        outputs.append(mixed.view(batch, kv_heads, group, rows, dim))
    return torch.cat(outputs, dim=3).view(batch, heads, time, dim)


class Attention(nn.Module):
    """Causal attention with grouped keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.q_proj = Linear(config.hidden_size, self.heads * self.head_dim)
        self.k_proj = Linear(config.hidden_size, self.kv_heads * self.head_dim)
        self.v_proj = Linear(config.hidden_size, self.kv_heads * self.head_dim)
        self.o_proj = Linear(self.heads * self.head_dim, config.hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend over the whole sequence."""
        batch, time, _ = x.shape
        q = self.q_proj(x).view(batch, time, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, time, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, time, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mixed = causal_attention(q, k, v)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, time, -1))


class MLP(nn.Module):
    """SwiGLU feed-forward layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Gate, multiply, project back."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One transformer layer with pre-normalisation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attention, then feed-forward, each with a residual."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Backbone(nn.Module):
    """Embedding, layers and last norm (``model.*`` in the checkpoint)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """Llama for causal language modelling with tied embeddings."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        cos, sin = rope_tables(config, config.max_position_embeddings)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = 0.02 / (2 * config.num_hidden_layers) ** 0.5 if deep else 0.02
                nn.init.normal_(parameter, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits for ``[batch, time]`` token ids."""
        table = self.model.embed_tokens.weight
        time = tokens.shape[1]
        cos, sin = self.cos[:time], self.sin[:time]
        x = F.embedding(tokens, table)
        for block in self.model.layers:
            x = block(x, cos, sin)
        return F.linear(self.model.norm(x), table)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, the tied embedding counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def quantized_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dictionary whose matrices went through q4f16_1 and back (norms: float16)."""
    return {
        name: quantize_dequantize(value) if value.dim() == 2 else value.half().float()
        for name, value in state.items()
    }
