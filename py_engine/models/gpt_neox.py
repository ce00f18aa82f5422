"""GPT-NeoX (Pythia, RedPajama INCITE): LayerNorms, biases, a plain MLP beside attention or behind.

Of each head only a part is rotated. In Hugging Face's files the rows of queries, keys and values
follow each other head by head; MLC's have all queries, all keys, all values.
"""

from __future__ import annotations

from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.kernels.norm import Norm
from py_engine.models.common import checked, read_activation, read_heads, read_lengths
from py_engine.models.family import Family
from py_engine.models.rope import DEFAULT_THETA, make_rope, rope_settings, rotary_dim
from py_engine.models.spec import Block, DecoderSpec, Layer, Mlp
from py_engine.weights.parameters import (
    FileKind,
    NameTable,
    Transform,
    linear_names,
    named,
    norm_names,
)

DEFAULT_ROTARY_FACTOR = 0.25


def gpt_neox_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a GPT-NeoX into a spec.

    Errors: UnsupportedModelConfigError for a value that the kernels cannot run,
    ModelFileFormatError for a missing or wrong field.
    """
    fields = config.model_fields()
    hidden_size = fields.integer("hidden_size", minimum=1)
    n_layers = fields.integer("num_hidden_layers", minimum=1)
    heads = read_heads(fields, hidden_size)
    factor = fields.number("rotary_pct", DEFAULT_ROTARY_FACTOR, minimum=0, maximum=1)
    rotated = rotary_dim(fields, heads.head_dim, factor)
    theta = fields.number("rotary_emb_base", DEFAULT_THETA, above=0)
    bias = fields.boolean("attention_bias", True)
    lengths = read_lengths(config)
    spec = DecoderSpec(
        hidden_size=hidden_size,
        vocab_size=config.vocab_size,
        active_vocab_size=config.active_vocab_size,
        heads=replace(heads, rotary_dim=rotated, qkv_bias=bias, output_bias=bias),
        mlp=Mlp(
            fields.integer("intermediate_size", minimum=1),
            read_activation(fields, ("hidden_act",), "gelu"),
            gated=False,
            bias=True,
        ),
        norm=Norm("layer", fields.number("layer_norm_eps", 1e-5, above=0), bias=True),
        layers=tuple(map(Layer, lengths.windows([None] * n_layers))),
        ropes=(make_rope(rope_settings(fields, None, theta), rotated, lengths.rope_context),),
        context_window_size=lengths.context,
        prefill_chunk_size=lengths.chunk,
        block=Block(parallel=fields.boolean("use_parallel_residual", True)),
        tied=fields.boolean("tie_word_embeddings", False),
    )
    return checked(spec, fields)


def _names(qkv_rows: Transform) -> NameTable:
    layer = "gpt_neox.layers.{i}"
    qkv = f"{layer}.attention.query_key_value"
    return {
        "embedding": named("gpt_neox.embed_in"),
        **norm_names("layers.{i}.input_norm", f"{layer}.input_layernorm"),
        **linear_names("layers.{i}.qkv", qkv, transform=qkv_rows),
        **linear_names("layers.{i}.output", f"{layer}.attention.dense"),
        **norm_names("layers.{i}.mlp_norm", f"{layer}.post_attention_layernorm"),
        **linear_names("layers.{i}.up", f"{layer}.mlp.dense_h_to_4h"),
        **linear_names("layers.{i}.down", f"{layer}.mlp.dense_4h_to_h"),
        **norm_names("final_norm", "gpt_neox.final_layer_norm"),
        "lm_head": named("embed_out"),
    }


GPT_NEOX_NAMES: dict[FileKind, NameTable] = {
    "mlc": _names("none"),
    "hf": _names("interleaved_heads"),
}

GPT_NEOX = Family(gpt_neox_spec, GPT_NEOX_NAMES)
