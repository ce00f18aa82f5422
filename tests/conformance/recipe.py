"""Tiny random models, made of NumPy alone, so that no weights need to be stored.

`make_fixtures.py` gives them to transformers; the tests write them as MLC folders and run them on
our kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from py_engine.kernels.formats import WeightFormat
from py_engine.weights.quantization import F32

N_PROMPT = 70
N_GREEDY = 12
PREFILL_CHUNK_SIZE = 32


@dataclass(frozen=True)
class Case:
    """One model: `config` holds the fields of Hugging Face's config.json that matter.

    `n_greedy` tokens follow the prompt.
    """

    name: str
    quantization: WeightFormat
    config: dict[str, Any] = field(hash=False)
    n_greedy: int = N_GREEDY


def _llama(**fields: Any) -> dict[str, Any]:
    common = {
        "model_type": "llama",
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    return {**common, **fields}


def _qwen2(**fields: Any) -> dict[str, Any]:
    common = {
        "model_type": "qwen2",
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        # As in the files of Qwen 2.5: a window that is not used.
        "sliding_window": 64,
        "max_window_layers": 1,
        "use_sliding_window": False,
    }
    return {**common, **fields}


def _qwen3(**fields: Any) -> dict[str, Any]:
    return _qwen2(model_type="qwen3", attention_bias=False, **fields)


def _sizes(
    hidden: int, inner: int, heads: tuple[int, int, int], layers: int, vocab: int, tied: bool
) -> dict[str, Any]:
    n_heads, n_kv_heads, head_dim = heads
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        "head_dim": head_dim,
        "num_hidden_layers": layers,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
    }


_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}

ROPE_CASES: tuple[tuple[int, dict[str, Any]], ...] = (
    (64, {"rope_type": "default", "rope_theta": 10000.0}),
    (48, {"rope_type": "default", "rope_theta": 1000000.0}),
    (80, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    (128, {**_LLAMA3_ROPE, "original_max_position_embeddings": 8192}),
    (64, {**_LLAMA3_ROPE, "factor": 32.0, "original_max_position_embeddings": 8192}),
)
"""Head sizes with their `rope_parameters`, as Hugging Face writes them."""

CASES = (
    Case("gqa_tied_q4f16", "q4f16_1", _llama(**_sizes(64, 96, (4, 2, 32), 2, 1003, True))),
    Case("mha_untied_q4f32", "q4f32_1", _llama(**_sizes(96, 160, (3, 3, 32), 2, 259, False))),
    Case(
        "mqa_llama3_rope_q0f16",
        "q0f16",
        _llama(**_sizes(128, 224, (4, 1, 48), 3, 515, False), rope_parameters=_LLAMA3_ROPE),
    ),
    Case("mha_tied_q0f32", "q0f32", _llama(**_sizes(128, 256, (2, 2, 64), 2, 1003, True))),
    Case(
        "linear_rope_q4f32",
        "q4f32_1",
        _llama(**_sizes(160, 192, (4, 1, 40), 2, 321, True), rope_parameters=_LINEAR_ROPE),
    ),
    Case(
        "mistral_q4f16",
        "q4f16_1",
        _llama(
            **_sizes(64, 128, (2, 1, 128), 2, 321, False), model_type="mistral", sliding_window=None
        ),
    ),
    # Windows that are shorter than the prompt: one shorter than a chunk too, one longer.
    Case(
        "mistral_window_24_q0f32",
        "q0f32",
        _llama(**_sizes(64, 96, (4, 2, 16), 3, 131, True), model_type="mistral", sliding_window=24),
        n_greedy=56,
    ),
    Case(
        "mistral_window_45_q4f16",
        "q4f16_1",
        _llama(
            **_sizes(96, 128, (6, 2, 32), 2, 259, False), model_type="mistral", sliding_window=45
        ),
    ),
    Case("smollm2_shape_q4f16", "q4f16_1", _llama(**_sizes(576, 1536, (9, 3, 64), 1, 300, True))),
    Case(
        "llama32_shape_q0f16",
        "q0f16",
        _llama(**_sizes(128, 320, (8, 2, 16), 2, 401, True), rope_parameters=_LLAMA3_ROPE),
    ),
    Case(
        "llama3_rope_q0f32",
        "q0f32",
        _llama(**_sizes(96, 128, (6, 2, 16), 3, 257, False), rope_parameters=_LLAMA3_ROPE),
    ),
    # Heads of Qwen 2.5 0.5B (14 to 2); then all formats, tied and not.
    Case("qwen2_tied_q4f16", "q4f16_1", _qwen2(**_sizes(224, 320, (14, 2, 16), 2, 403, True))),
    Case("qwen2_untied_q4f32", "q4f32_1", _qwen2(**_sizes(128, 192, (4, 2, 32), 2, 259, False))),
    Case("qwen2_mha_q0f16", "q0f16", _qwen2(**_sizes(96, 160, (3, 3, 32), 3, 321, True))),
    Case(
        "qwen2_window_q0f32",
        "q0f32",
        _qwen2(
            **_sizes(64, 96, (2, 1, 32), 2, 257, False),
            use_sliding_window=True,
            sliding_window=24,
            max_window_layers=0,
        ),
    ),
    # Heads that together are wider than the model, as in Qwen 3 0.6B, and one of an odd size.
    Case("qwen3_tied_q4f16", "q4f16_1", _qwen3(**_sizes(64, 192, (4, 2, 64), 2, 403, True))),
    Case("qwen3_untied_q4f32", "q4f32_1", _qwen3(**_sizes(128, 192, (4, 1, 32), 3, 259, False))),
    Case("qwen3_head_80_q0f16", "q0f16", _qwen3(**_sizes(96, 160, (2, 2, 80), 2, 321, True))),
    Case("qwen3_head_128_q0f32", "q0f32", _qwen3(**_sizes(64, 96, (4, 2, 128), 2, 257, False))),
)


def weight_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a checkpoint by name, in the order in which they are drawn."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden)
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        shapes |= {
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.self_attn.q_proj.weight": (queries, hidden),
            f"{layer}.self_attn.k_proj.weight": (keys, hidden),
            f"{layer}.self_attn.v_proj.weight": (keys, hidden),
            f"{layer}.self_attn.o_proj.weight": (hidden, queries),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
            f"{layer}.mlp.gate_proj.weight": (inner, hidden),
            f"{layer}.mlp.up_proj.weight": (inner, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, inner),
        }
        if config["model_type"] == "qwen2":
            biases = {"q": queries, "k": keys, "v": keys}
            shapes |= {f"{layer}.self_attn.{p}_proj.bias": (n,) for p, n in biases.items()}
        if config["model_type"] == "qwen3":
            head = (config["head_dim"],)
            shapes |= {f"{layer}.self_attn.{p}_norm.weight": head for p in "qk"}
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def make_weights(case: Case, seed: int) -> dict[str, F32]:
    """Draw a checkpoint's weights, before any quantisation."""
    bits = np.random.PCG64(seed)
    return {name: _draw(bits, name, shape) for name, shape in weight_shapes(case.config).items()}


def make_prompt(case: Case, seed: int) -> list[int]:
    """Draw the prompt's token ids."""
    raw = np.random.PCG64(seed + 1_000_000).random_raw(N_PROMPT)
    return [int(value % case.config["vocab_size"]) for value in raw]


def draw_uniform(bits: np.random.PCG64, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float64 numbers from -1 to 1."""
    # Raw bits are the same in every NumPy; the distributions of Generator need not be.
    raw = bits.random_raw(int(np.prod(shape))) >> np.uint64(40)
    return (raw.astype(np.float64) * 2.0**-23 - 1.0).reshape(shape)


def _draw(bits: np.random.PCG64, name: str, shape: tuple[int, ...]) -> F32:
    uniform = draw_uniform(bits, shape)
    # Queries and keys are larger, so that attention is peaked and depends on the positions.
    layer, kind = name.split(".")[-2:]
    gain = 2.0 if layer in ("q_proj", "k_proj", "q_norm", "k_norm") else 1.0
    if kind == "bias":
        return (gain * uniform).astype(np.float32)
    if len(shape) == 1:
        return (gain * (1.0 + 0.3 * uniform)).astype(np.float32)
    return (gain * np.sqrt(3.0 / shape[1]) * uniform).astype(np.float32)
