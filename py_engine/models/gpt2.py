"""GPT-2: learned positions, LayerNorms, biases everywhere, a plain MLP with GELU."""

from __future__ import annotations

from py_engine.config import ChatConfig
from py_engine.errors import UnsupportedModelConfigError
from py_engine.json_fields import JsonFields
from py_engine.kernels.norm import Norm
from py_engine.models.common import Lengths, checked, read_activation, read_lengths, refuse
from py_engine.models.family import Family
from py_engine.models.spec import DecoderSpec, Heads, Layer, Mlp
from py_engine.weights.parameters import (
    FileKind,
    NameTable,
    Spelling,
    Transform,
    linear_names,
    named,
    norm_names,
)


def gpt2_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a GPT-2 into a spec.

    Errors: UnsupportedModelConfigError for a value that the kernels cannot run and for a context
    without positions, ModelFileFormatError for a missing or wrong field.
    """
    fields = config.model_fields()
    refuse(fields, add_cross_attention=False)
    hidden_size = fields.integer("n_embd", minimum=1)
    n_heads = fields.integer("n_head", minimum=1)
    inner = fields.integer("n_inner", 0)
    lengths = read_lengths(config)
    head_dim = hidden_size // n_heads
    spec = DecoderSpec(
        hidden_size=hidden_size,
        vocab_size=config.vocab_size,
        active_vocab_size=config.active_vocab_size,
        heads=Heads(n_heads, n_heads, head_dim, rotary_dim=0, qkv_bias=True, output_bias=True),
        mlp=Mlp(
            inner if inner > 0 else 4 * hidden_size,
            read_activation(fields, ("activation_function",), "gelu_new"),
            gated=False,
            bias=True,
        ),
        norm=Norm("layer", fields.number("layer_norm_epsilon", 1e-5, above=0), bias=True),
        layers=_layers(fields, head_dim),
        ropes=(),
        context_window_size=lengths.context,
        prefill_chunk_size=lengths.chunk,
        tied=fields.boolean("tie_word_embeddings", True),
        n_positions=_positions(fields, lengths),
    )
    return checked(spec, fields)


def _layers(fields: JsonFields, head_dim: int) -> tuple[Layer, ...]:
    """Return the layers with the scale of their scores: all the same, or smaller in later ones."""
    scale = head_dim**-0.5 if fields.boolean("scale_attn_weights", True) else 1.0
    falls = fields.boolean("scale_attn_by_inverse_layer_idx", False)
    n_layers = fields.integer("n_layer", minimum=1)
    return tuple(Layer(scale=scale / (index + 1 if falls else 1)) for index in range(n_layers))


def _positions(fields: JsonFields, lengths: Lengths) -> int:
    """Return the rows of the table of positions: MLC calls them `context_window_size`."""
    name = "n_positions" if "n_positions" in fields else "context_window_size"
    n_positions = fields.integer(name, 1024, minimum=1)
    if lengths.context > n_positions:
        raise UnsupportedModelConfigError(
            f"{fields.where(name)} is {n_positions}, the positions that the model has learned, but "
            "sequences may become longer with these window sizes. Set context_window_size to at "
            f"most {n_positions} and sliding_window_size to -1 in chat_opts."
        )
    return n_positions


def _names(transform: Transform) -> NameTable:
    layer = "transformer.h.{i}"
    return {
        "embedding": named("transformer.wte"),
        "positions": named("transformer.wpe"),
        **norm_names("layers.{i}.input_norm", f"{layer}.ln_1"),
        **linear_names("layers.{i}.qkv", f"{layer}.attn.c_attn", transform=transform),
        **linear_names("layers.{i}.output", f"{layer}.attn.c_proj", transform=transform),
        **norm_names("layers.{i}.mlp_norm", f"{layer}.ln_2"),
        **linear_names("layers.{i}.up", f"{layer}.mlp.c_fc", transform=transform),
        **linear_names("layers.{i}.down", f"{layer}.mlp.c_proj", transform=transform),
        **norm_names("final_norm", "transformer.ln_f"),
        "lm_head": named("lm_head"),
    }


GPT2_NAMES: dict[FileKind, NameTable] = {"mlc": _names("none"), "hf": _names("transpose")}

GPT2 = Family(gpt2_spec, GPT2_NAMES, (Spelling(prefixes=(("transformer.", ""),)),))
"""The first checkpoints have no "transformer." before their names."""
