"""The tiny decoder models of the conformance tests, as data.

Configurations are those of Hugging Face, written as published models have them: some in the older
form (`rope_theta` at the top, `rope_scaling`), some in the newer one (`rope_parameters`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

N_PROMPT = 70
N_GREEDY = 24
PREFILL_CHUNK_SIZE = 32
CONTEXT = 128


@dataclass(frozen=True)
class Case:
    """One model: `config` holds the fields of Hugging Face's config.json that matter.

    `quantization` is that of its MLC files, in MLC's names. `n_greedy` tokens follow the prompt.
    """

    name: str
    quantization: str
    config: dict[str, Any] = field(hash=False)
    n_greedy: int = N_GREEDY

    @property
    def family(self) -> str:
        """The configuration's `model_type`."""
        family: str = self.config["model_type"]
        return family


def _sizes(
    hidden: int, inner: int, heads: tuple[int, int, int | None], layers: int, vocab: int, tied: bool
) -> dict[str, Any]:
    """Return the sizes as most families name them; `heads` are queries, keys and their size."""
    n_heads, n_kv_heads, head_dim = heads
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        **({} if head_dim is None else {"head_dim": head_dim}),
        "num_hidden_layers": layers,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def _default_rope(theta: float, **fields: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, **fields}


def _llama(*sizes: Any, **fields: Any) -> dict[str, Any]:
    common = {
        "model_type": "llama",
        "rms_norm_eps": 1e-5,
        "rope_parameters": _default_rope(10000.0),
    }
    return {**common, **_sizes(*sizes), **fields}


def _mistral(*sizes: Any, window: int | None = None) -> dict[str, Any]:
    return _llama(*sizes, model_type="mistral", sliding_window=window)


def _ministral3(*sizes: Any, **rope: Any) -> dict[str, Any]:
    yarn = {
        "rope_type": "yarn",
        "rope_theta": 1000000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    }
    return _llama(*sizes, model_type="ministral3", rope_parameters={**yarn, **rope})


def _qwen2(*sizes: Any, **fields: Any) -> dict[str, Any]:
    common = {
        "model_type": "qwen2",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        # As in the files of Qwen 2.5: a window that is not used.
        "sliding_window": 64,
        "max_window_layers": 1,
        "use_sliding_window": False,
    }
    return {**common, **_sizes(*sizes), **fields}


def _qwen3(*sizes: Any, bias: bool = False) -> dict[str, Any]:
    return _qwen2(*sizes, model_type="qwen3", attention_bias=bias)


def _qwen3_5(
    *sizes: Any, linear: tuple[int, int, int, int, int], layers: int | list[str], **fields: Any
) -> dict[str, Any]:
    """Return a text model; `linear` are key heads, value heads, their sizes, and the taps.

    `layers` is the number of layers of which one has full attention, or the types of all.
    """
    key_heads, value_heads, key_dim, value_dim, taps = linear
    common = {
        "model_type": "qwen3_5_text",
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attn_output_gate": True,
        "linear_num_key_heads": key_heads,
        "linear_num_value_heads": value_heads,
        "linear_key_head_dim": key_dim,
        "linear_value_head_dim": value_dim,
        "linear_conv_kernel_dim": taps,
        **(
            {"layer_types": layers}
            if isinstance(layers, list)
            else {"full_attention_interval": layers}
        ),
        "rope_parameters": _default_rope(
            10000000.0,
            partial_rotary_factor=0.25,
            mrope_interleaved=True,
            mrope_section=[2, 1, 1],
        ),
    }
    return {**common, **_sizes(*sizes), **fields}


def _olmo2(*sizes: Any, **fields: Any) -> dict[str, Any]:
    common = {"model_type": "olmo2", "rms_norm_eps": 1e-6, "rope_theta": 500000.0}
    return {**common, **_sizes(*sizes), "attention_bias": False, **fields}


def _phi3(*sizes: Any, **fields: Any) -> dict[str, Any]:
    common = {
        "model_type": "phi3",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": CONTEXT,
        "sliding_window": None,
    }
    return {**common, **_sizes(*sizes), **fields}


def _longrope(pairs: int, original: int) -> dict[str, Any]:
    """Return Phi 3's fields for a model that was made longer than its `original` context."""
    return {
        "original_max_position_embeddings": original,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0 + 0.02 * i for i in range(pairs)],
            "long_factor": [1.0 + 0.75 * i for i in range(pairs)],
        },
    }


def _gemma(*sizes: Any, **fields: Any) -> dict[str, Any]:
    common = {
        "model_type": "gemma",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "gelu",
        "hidden_activation": "gelu_pytorch_tanh",
    }
    return {**common, **_sizes(*sizes), **fields}


def _gemma2(*sizes: Any, **fields: Any) -> dict[str, Any]:
    common = {
        "model_type": "gemma2",
        # Caps as low as the scores and logits of tiny models.
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 4.0,
        "query_pre_attn_scalar": 20,
        "sliding_window": 24,
    }
    return _gemma(*sizes, **{**common, **fields})


def _gemma3(*sizes: Any, **fields: Any) -> dict[str, Any]:
    common = {
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": 80,
        "sliding_window": 24,
        "sliding_window_pattern": 3,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
    }
    return _gemma(*sizes, **{**common, **fields})


def _stablelm(*sizes: Any, **fields: Any) -> dict[str, Any]:
    common = {
        "model_type": "stablelm",
        "hidden_act": "silu",
        "layer_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.25,
        "use_qkv_bias": False,
        "qk_layernorm": False,
        "use_parallel_residual": False,
    }
    return {**common, **_sizes(*sizes), **fields}


def _phi(*sizes: Any, **fields: Any) -> dict[str, Any]:
    common = {
        "model_type": "phi",
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "qk_layernorm": False,
    }
    return {**common, **_sizes(*sizes), **fields}


def _gpt_neox(*sizes: Any, **fields: Any) -> dict[str, Any]:
    common = {
        "model_type": "gpt_neox",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "use_parallel_residual": True,
    }
    sized = _sizes(*sizes)
    del sized["num_key_value_heads"]
    return {**common, **sized, **fields}


def _gpt2(hidden: int, heads: int, layers: int, vocab: int, **fields: Any) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "n_embd": hidden,
        "n_head": heads,
        "n_layer": layers,
        "vocab_size": vocab,
        "n_positions": CONTEXT,
        "n_ctx": CONTEXT,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **fields,
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
    (64, _default_rope(10000.0)),
    (48, _default_rope(1000000.0)),
    (80, {**_LINEAR_ROPE, "factor": 4.0}),
    (128, {**_LLAMA3_ROPE, "original_max_position_embeddings": 8192}),
    (64, {**_LLAMA3_ROPE, "factor": 32.0, "original_max_position_embeddings": 8192}),
)
"""Head sizes with their `rope_parameters`, as Hugging Face writes them."""

_LLAMA_CASES = (
    Case("gqa_tied_q4f16", "q4f16_1", _llama(64, 96, (4, 2, 32), 2, 403, True)),
    Case("mha_untied_q4f32", "q4f32_1", _llama(96, 160, (3, 3, 32), 2, 259, False)),
    Case(
        "mqa_llama3_rope_q0f16",
        "q0f16",
        _llama(128, 224, (4, 1, 48), 3, 165, False, rope_parameters=_LLAMA3_ROPE),
    ),
    Case("mha_tied_q0f32", "q0f32", _llama(128, 256, (2, 2, 64), 2, 203, True)),
    Case(
        "linear_rope_q4f32",
        "q4f32_1",
        _llama(160, 192, (4, 1, 40), 2, 171, True, rope_parameters=_LINEAR_ROPE),
    ),
    # Three bits in groups of 40, the last of some rows smaller; and tables that are not quantised.
    Case("llama_q3f16", "q3f16_1", _llama(160, 192, (4, 1, 40), 2, 131, False)),
    Case("llama_q4f16_2", "q4f16_2", _llama(64, 96, (2, 2, 32), 2, 133, False)),
    Case(
        "llama_biases_q4f16",
        "q4f16_1",
        _llama(96, 160, (6, 2, 16), 2, 135, False, attention_bias=True, mlp_bias=True),
    ),
    Case("smollm2_shape_q4f16", "q4f16_1", _llama(576, 1536, (9, 3, 64), 1, 150, True)),
    Case(
        "llama32_shape_q0f16",
        "q0f16",
        _llama(128, 320, (8, 2, 16), 2, 201, True, rope_parameters=_LLAMA3_ROPE),
    ),
)

_MISTRAL_CASES = (
    Case("mistral_q4f16", "q4f16_1", _mistral(64, 128, (2, 1, 128), 2, 161, False)),
    # Windows that are shorter than the prompt: one shorter than a chunk too, one longer.
    Case(
        "mistral_window_24_q0f32",
        "q0f32",
        _mistral(64, 96, (4, 2, 16), 3, 131, True, window=24),
        n_greedy=56,
    ),
    Case(
        "mistral_window_45_q4f16",
        "q4f16_1",
        _mistral(96, 128, (6, 2, 32), 2, 159, False, window=45),
    ),
    # Ministral 8B: windows in some layers, without a rule.
    Case(
        "ministral_layer_types_q4f32",
        "q4f32_1",
        _llama(
            *(64, 96, (4, 2, 32), 3, 131, False),
            model_type="ministral",
            sliding_window=24,
            layer_types=["full_attention", "sliding_attention", "sliding_attention"],
        ),
    ),
    # Longer than its original context, and the scale of queries grows in steps behind it.
    Case("ministral3_tied_q4f16", "q4f16_1", _ministral3(64, 96, (4, 2, 32), 2, 163, True)),
    Case(
        "ministral3_mscale_q0f32",
        "q0f32",
        _ministral3(96, 128, (2, 1, 64), 2, 129, False, mscale_all_dim=0.0, factor=3.0),
    ),
)

_QWEN_CASES = (
    # Heads of Qwen 2.5 0.5B (14 to 2); then all formats, tied and not.
    Case("qwen2_tied_q4f16", "q4f16_1", _qwen2(224, 320, (14, 2, None), 2, 203, True)),
    Case("qwen2_untied_q4f32", "q4f32_1", _qwen2(128, 192, (4, 2, None), 2, 159, False)),
    Case("qwen2_mha_q0f16", "q0f16", _qwen2(96, 160, (3, 3, None), 3, 161, True)),
    Case(
        "qwen2_window_q0f32",
        "q0f32",
        _qwen2(
            *(64, 96, (2, 1, None), 2, 157, False),
            use_sliding_window=True,
            sliding_window=24,
            max_window_layers=0,
        ),
    ),
    Case(
        "qwen2_window_of_some_layers_q0f16",
        "q0f16",
        _qwen2(
            *(64, 96, (4, 2, None), 3, 133, True),
            use_sliding_window=True,
            sliding_window=20,
            max_window_layers=1,
        ),
    ),
    # Heads that together are wider than the model, as in Qwen 3 0.6B, and one of an odd size.
    Case("qwen3_tied_q4f16", "q4f16_1", _qwen3(64, 192, (4, 2, 64), 2, 203, True)),
    Case("qwen3_untied_q4f32", "q4f32_1", _qwen3(128, 192, (4, 1, 32), 3, 159, False)),
    Case("qwen3_head_80_q0f16", "q0f16", _qwen3(96, 160, (2, 2, 80), 2, 161, True)),
    Case("qwen3_biases_q4f16", "q4f16_1", _qwen3(64, 96, (2, 1, 32), 2, 131, False, bias=True)),
    Case("qwen3_head_128_q0f32", "q0f32", _qwen3(64, 96, (4, 2, 128), 2, 157, False)),
)

_QWEN3_5_CASES = (
    # The first as Qwen 3.5 0.8B, the second as the 4B: two heads of values for a head of keys.
    Case(
        "qwen3_5_tied_q4f16",
        "q4f16_1",
        _qwen3_5(64, 96, (4, 2, 32), 4, 163, True, linear=(2, 2, 16, 16, 4), layers=4),
    ),
    Case(
        "qwen3_5_grouped_q4f32",
        "q4f32_1",
        _qwen3_5(96, 160, (6, 2, 32), 4, 131, False, linear=(3, 6, 8, 16, 4), layers=2),
    ),
    # Qwen 3.5's own sizes of heads: one of 256, of which 64 are rotated, and some of 128 by 128.
    Case(
        "qwen3_5_wide_heads_q0f16",
        "q0f16",
        _qwen3_5(
            *(64, 96, (2, 1, 256), 3, 133, True),
            linear=(1, 2, 128, 128, 4),
            layers=["linear_attention", "full_attention", "linear_attention"],
            attention_bias=True,
        ),
    ),
    Case(
        "qwen3_5_few_taps_q0f32",
        "q0f32",
        _qwen3_5(
            *(64, 128, (4, 4, 16), 5, 129, False),
            linear=(2, 8, 20, 4, 2),
            layers=4,
            rope_parameters=_default_rope(10000.0, partial_rotary_factor=0.5),
        ),
    ),
)

_OLMO_CASES = (
    Case("olmo2_untied_q4f16", "q4f16_1", _olmo2(96, 160, (3, 3, None), 2, 161, False)),
    Case("olmo2_gqa_tied_q0f32", "q0f32", _olmo2(128, 192, (4, 2, None), 3, 131, True)),
)

_PHI3_CASES = (
    Case("phi3_untied_q4f16", "q4f16_1", _phi3(96, 160, (3, 3, None), 2, 161, False)),
    Case(
        "phi3_window_q4f32",
        "q4f32_1",
        _phi3(64, 96, (2, 2, None), 2, 131, False, sliding_window=30),
    ),
    # Phi 4 mini: tied, few heads of keys, three quarters of a head rotated, and long factors; all
    # sequences but one token are longer than the original context.
    Case(
        "phi4_mini_longrope_q0f16",
        "q0f16",
        _phi3(
            *(128, 192, (4, 2, None), 2, 133, True),
            partial_rotary_factor=0.75,
            **_longrope(12, original=8),
        ),
    ),
    # A sequence that grows out of its original context: then all of it has the long factors.
    Case(
        "phi3_longrope_crossed_q4f16",
        "q4f16_1",
        _phi3(*(64, 96, (4, 2, None), 2, 131, False), **_longrope(8, original=N_PROMPT + 10)),
    ),
    # Phi 3 mini 128k: sequences shorter than the original context have the short factors.
    Case(
        "phi3_shortrope_q0f32",
        "q0f32",
        _phi3(
            *(64, 128, (2, 2, None), 2, 129, False),
            **{**_longrope(16, original=CONTEXT), "max_position_embeddings": 4 * CONTEXT},
        ),
    ),
)

_GEMMA_CASES = (
    # Gemma 2B: one head of keys, heads wider than the model.
    Case("gemma_mqa_q4f16", "q4f16_1", _gemma(64, 128, (4, 1, 32), 2, 203, True)),
    Case("gemma_mha_q0f32", "q0f32", _gemma(96, 160, (3, 3, 64), 2, 131, True)),
    Case("gemma2_q4f16", "q4f16_1", _gemma2(64, 128, (4, 2, 32), 3, 163, True, sliding_window=40)),
    Case("gemma2_q0f32", "q0f32", _gemma2(96, 160, (2, 1, 64), 2, 131, True)),
    Case(
        "gemma2_without_caps_q4f32",
        "q4f32_1",
        _gemma2(
            *(64, 96, (2, 2, 48), 2, 129, True),
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
        ),
    ),
    Case("gemma3_q4f16", "q4f16_1", _gemma3(64, 128, (4, 1, 32), 4, 163, True)),
    # Gemma 3 4B: the global layers' positions are scaled.
    Case(
        "gemma3_scaled_q0f32",
        "q0f32",
        _gemma3(
            *(96, 160, (2, 1, 64), 3, 131, True),
            sliding_window=40,
            rope_scaling={"factor": 8.0, "rope_type": "linear"},
        ),
    ),
    Case(
        "gemma3_layer_types_q0f16",
        "q0f16",
        _gemma3(
            *(64, 96, (2, 2, 48), 2, 129, True),
            layer_types=["full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": _default_rope(500000.0),
                "sliding_attention": _default_rope(5000.0),
            },
        ),
    ),
)

_STABLELM_CASES = (
    # StableLM 2 1.6B; StableLM 3B, of whose heads of 80 only 20 are rotated; StableLM 2 12B.
    Case(
        "stablelm_qkv_bias_q4f16",
        "q4f16_1",
        _stablelm(128, 192, (4, 4, None), 2, 163, False, use_qkv_bias=True),
    ),
    Case(
        "stablelm_untied_q4f32",
        "q4f32_1",
        _stablelm(160, 192, (2, 2, None), 2, 131, False),
    ),
    Case(
        "stablelm_parallel_qk_norm_q0f32",
        "q0f32",
        _stablelm(
            *(160, 192, (4, 2, None), 2, 129, False),
            qk_layernorm=True,
            use_parallel_residual=True,
            partial_rotary_factor=0.4,
        ),
    ),
)

_GPT_CASES = (
    Case("gpt2_q4f16", "q4f16_1", _gpt2(64, 4, 2, 203)),
    Case(
        "gpt2_scaled_by_layer_q0f32",
        "q0f32",
        _gpt2(96, 3, 3, 131, n_inner=160, scale_attn_by_inverse_layer_idx=True),
    ),
    Case("phi_q4f16", "q4f16_1", _phi(64, 128, (2, 2, None), 2, 163, False)),
    # Phi 2: heads of 80, of which 32 are rotated.
    Case(
        "phi2_heads_q0f32",
        "q0f32",
        _phi(160, 224, (2, 2, None), 2, 131, False, partial_rotary_factor=0.4),
    ),
    Case("phi_gqa_q0f16", "q0f16", _phi(96, 160, (6, 2, None), 2, 129, False)),
    # Pythia, and RedPajama INCITE, whose blocks are serial and heads rotated as a whole.
    Case("gpt_neox_parallel_q4f16", "q4f16_1", _gpt_neox(128, 192, (2, 2, None), 2, 163, False)),
    Case(
        "gpt_neox_serial_q4f32",
        "q4f32_1",
        _gpt_neox(
            *(96, 160, (3, 3, None), 2, 131, False), use_parallel_residual=False, rotary_pct=1.0
        ),
    ),
    Case(
        "gpt_neox_tied_q0f32",
        "q0f32",
        _gpt_neox(*(64, 128, (4, 4, None), 2, 129, True), rotary_pct=0.5, attention_bias=False),
    ),
)

CASES = (
    *_LLAMA_CASES,
    *_MISTRAL_CASES,
    *_QWEN_CASES,
    *_QWEN3_5_CASES,
    *_OLMO_CASES,
    *_PHI3_CASES,
    *_GEMMA_CASES,
    *_STABLELM_CASES,
    *_GPT_CASES,
)

GOLDEN = {
    "llama": "gqa_tied_q4f16",
    "mistral": "mistral_window_24_q0f32",
    "ministral": "ministral_layer_types_q4f32",
    "ministral3": "ministral3_tied_q4f16",
    "qwen2": "qwen2_tied_q4f16",
    "qwen3": "qwen3_tied_q4f16",
    "qwen3_5_text": "qwen3_5_grouped_q4f32",
    "olmo2": "olmo2_untied_q4f16",
    "phi3": "phi4_mini_longrope_q0f16",
    "gemma": "gemma_mqa_q4f16",
    "gemma2": "gemma2_q4f16",
    "gemma3_text": "gemma3_q4f16",
    "stablelm": "stablelm_parallel_qk_norm_q0f32",
    "gpt2": "gpt2_q4f16",
    "phi": "phi_q4f16",
    "gpt_neox": "gpt_neox_parallel_q4f16",
}
"""One case of each family, by `model_type`, for the slower tests."""

FROM_CHECKPOINTS = ("gpt2", "gpt_neox", "gemma3_text", "stablelm")
"""Families whose tensors in Hugging Face's files need most: these run in the browser from there."""


def case_named(name: str) -> Case:
    """Return a case by its name."""
    return next(case for case in CASES if case.name == name)
