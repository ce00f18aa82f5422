"""Llama and the models of its shape: Llama 2 and 3, SmolLM2, TinyLlama, Mistral."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.kernels.norm import Norm
from py_engine.models.common import (
    checked,
    read_activation,
    read_heads,
    read_lengths,
    window_sizes,
)
from py_engine.models.family import Family
from py_engine.models.rope import make_rope, rope_settings, rotary_dim
from py_engine.models.spec import DecoderSpec, Layer, Mlp
from py_engine.weights.parameters import (
    FileKind,
    NameTable,
    Spelling,
    linear_names,
    named,
    norm_names,
)


def llama_spec(config: ChatConfig, *, default_head_dim: int = 0) -> DecoderSpec:
    """Turn the configuration of a Llama-shaped model into a spec.

    Other families start from it and replace what they have otherwise. Reads MLC's field names and
    Hugging Face's. Errors: UnsupportedModelConfigError for a value that the kernels cannot run,
    ModelFileFormatError for a missing or wrong field.
    """
    fields = config.model_fields()
    hidden_size = fields.integer("hidden_size", minimum=1)
    n_layers = fields.integer("num_hidden_layers", minimum=1)
    heads = read_heads(fields, hidden_size, default_head_dim)
    rotated = rotary_dim(fields, heads.head_dim)
    bias = fields.boolean("attention_bias", False)
    lengths = read_lengths(config)
    sizes = window_sizes(fields, n_layers)
    spec = DecoderSpec(
        hidden_size=hidden_size,
        vocab_size=config.vocab_size,
        active_vocab_size=config.active_vocab_size,
        heads=replace(heads, rotary_dim=rotated, qkv_bias=bias, output_bias=bias),
        mlp=Mlp(
            fields.integer("intermediate_size", minimum=1),
            read_activation(fields, ("hidden_act",), "silu"),
            bias=fields.boolean("mlp_bias", False),
        ),
        norm=Norm("rms", fields.number("rms_norm_eps", 1e-6, above=0)),
        layers=tuple(Layer(window) for window in lengths.windows(sizes)),
        ropes=(make_rope(rope_settings(fields), rotated, lengths.rope_context),),
        context_window_size=lengths.context,
        prefill_chunk_size=lengths.chunk,
        tied=fields.boolean("tie_word_embeddings", False),
    )
    return checked(spec, fields)


_LAYER = "model.layers.{i}"


def _projections(module: str, parts: Iterable[str]) -> list[str]:
    return [f"{_LAYER}.{module}.{part}_proj" for part in parts]


LLAMA_SHARED: NameTable = {
    "embedding": named("model.embed_tokens"),
    **norm_names("layers.{i}.input_norm", f"{_LAYER}.input_layernorm"),
    **norm_names("layers.{i}.q_norm", f"{_LAYER}.self_attn.q_norm"),
    **norm_names("layers.{i}.k_norm", f"{_LAYER}.self_attn.k_norm"),
    **linear_names("layers.{i}.output", f"{_LAYER}.self_attn.o_proj"),
    **norm_names("layers.{i}.mlp_norm", f"{_LAYER}.post_attention_layernorm"),
    **linear_names("layers.{i}.down", f"{_LAYER}.mlp.down_proj"),
    **norm_names("final_norm", "model.norm"),
    **linear_names("lm_head", "lm_head"),
}
"""What MLC's files and Hugging Face's call alike."""

LLAMA_NAMES: dict[FileKind, NameTable] = {
    "mlc": {
        **LLAMA_SHARED,
        **linear_names("layers.{i}.qkv", f"{_LAYER}.self_attn.qkv_proj"),
        **linear_names("layers.{i}.gate_up", f"{_LAYER}.mlp.gate_up_proj"),
    },
    "hf": {
        **LLAMA_SHARED,
        **linear_names("layers.{i}.qkv", *_projections("self_attn", "qkv")),
        **linear_names("layers.{i}.gate_up", *_projections("mlp", ("gate", "up"))),
    },
}

LLAMA_SPELLINGS = (
    # Saved without the head, and as the language model of a larger one.
    Spelling(prefixes=(("model.", ""),)),
    Spelling(prefixes=(("model.", "language_model.model."), ("", "language_model."))),
    Spelling(prefixes=(("model.", "model.language_model."),)),
)

LLAMA = Family(llama_spec, LLAMA_NAMES, LLAMA_SPELLINGS)
