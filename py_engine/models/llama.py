"""Llama and the models of its shape: Llama 2 and 3, SmolLM2, TinyLlama, Mistral."""

from __future__ import annotations

from py_engine.config import ChatConfig
from py_engine.errors import UnsupportedModelConfigError
from py_engine.json_fields import JsonFields, shown
from py_engine.kernels.attention_shape import HEAD_DIM_MULTIPLE, MAX_HEAD_DIM, SlidingWindow
from py_engine.kernels.formats import BLOCK
from py_engine.models.rope import rope_inv_freq, rope_settings
from py_engine.models.spec import MAX_SLIDING_POSITIONS, DecoderSpec, LayerNames
from py_engine.weights.formats import weight_format

DEFAULT_PREFILL_CHUNK_SIZE = 256


def llama_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a Llama-shaped model into a spec.

    Other families start from it and replace what they have otherwise. Reads MLC's field names and
    Hugging Face's. Errors: UnsupportedModelConfigError for a value that the kernels cannot run,
    ModelFileFormatError for a missing or wrong field, UnknownQuantizationError.
    """
    fields = config.model_fields()
    n_heads = fields.integer("num_attention_heads", minimum=1)
    hidden_size = fields.integer("hidden_size", minimum=1)
    # MLC writes 0 where the size follows from the others.
    head_dim = fields.integer("head_dim", 0, minimum=0) or hidden_size // n_heads
    slides = config.sliding_window_size > 0
    context_window_size = MAX_SLIDING_POSITIONS if slides else config.context_window_size
    prefill_chunk_size = _prefill_chunk_size(config, context_window_size)
    spec = DecoderSpec(
        weight_format=weight_format(config),
        n_layers=fields.integer("num_hidden_layers", minimum=1),
        hidden_size=hidden_size,
        intermediate_size=fields.integer("intermediate_size", minimum=1),
        n_heads=n_heads,
        n_kv_heads=fields.integer("num_key_value_heads", 0, minimum=0) or n_heads,
        head_dim=head_dim,
        vocab_size=config.vocab_size,
        active_vocab_size=config.active_vocab_size,
        rms_norm_eps=fields.number("rms_norm_eps", above=0),
        rope_inv_freq=rope_inv_freq(head_dim, rope_settings(fields)),
        context_window_size=context_window_size,
        prefill_chunk_size=prefill_chunk_size,
        embedding="model.embed_tokens",
        layers=tuple(map(llama_layer_names, range(fields.integer("num_hidden_layers")))),
        final_norm="model.norm",
        lm_head=None if fields.boolean("tie_word_embeddings", False) else "lm_head",
        window=_sliding_window(config, prefill_chunk_size) if slides else None,
    )
    _check_variant(fields)
    _check_shapes(spec, fields)
    return spec


def llama_layer_names(index: int) -> LayerNames:
    """Return the names of layer `index`, which families of the same shape vary."""
    layer = f"model.layers.{index}"
    return LayerNames(
        input_norm=f"{layer}.input_layernorm",
        qkv=f"{layer}.self_attn.qkv_proj",
        output=f"{layer}.self_attn.o_proj",
        post_attention_norm=f"{layer}.post_attention_layernorm",
        gate_up=f"{layer}.mlp.gate_up_proj",
        down=f"{layer}.mlp.down_proj",
    )


def _sliding_window(config: ChatConfig, prefill_chunk_size: int) -> SlidingWindow:
    return SlidingWindow.for_chunks(
        config.sliding_window_size, config.attention_sink_size, prefill_chunk_size
    )


def _prefill_chunk_size(config: ChatConfig, context_window_size: int) -> int:
    size = config.prefill_chunk_size
    if size <= 0:
        size = DEFAULT_PREFILL_CHUNK_SIZE
    # Files give the 2048 of a large GPU; longer chunks cost memory and delay an interruption.
    if "prefill_chunk_size" not in config.overridden:
        size = min(size, DEFAULT_PREFILL_CHUNK_SIZE)
    return min(size, context_window_size)


def _check_variant(fields: JsonFields) -> None:
    """Refuse what looks like Llama but computes something else."""
    for name in ("attention_bias", "mlp_bias", "use_bias"):
        if fields.boolean(name, False):
            raise UnsupportedModelConfigError(
                f"{fields.where(name)} is true, but such biases are not supported. Choose a model "
                "without them."
            )
    activation = fields.string("hidden_act", "silu")
    if activation != "silu":
        raise UnsupportedModelConfigError(
            f"{fields.where('hidden_act')} is {shown(activation)}, but only silu is supported. "
            "Choose a model with this activation."
        )
    rotary = fields.number("partial_rotary_factor", 1.0)
    if rotary != 1.0:
        raise UnsupportedModelConfigError(
            f"{fields.where('partial_rotary_factor')} is {rotary:g}, but heads are rotated as a "
            "whole here. Choose a model whose factor is 1."
        )


def _check_shapes(spec: DecoderSpec, fields: JsonFields) -> None:
    """Refuse shapes that the kernels have no code for."""
    for name, size in (
        ("hidden_size", spec.hidden_size),
        ("intermediate_size", spec.intermediate_size),
        ("num_attention_heads * head_dim", spec.n_heads * spec.head_dim),
    ):
        if size % BLOCK:
            raise _unsupported(fields, name, size, f"a multiple of {BLOCK}")
    if spec.head_dim % HEAD_DIM_MULTIPLE or spec.head_dim > MAX_HEAD_DIM:
        wanted = f"a multiple of {HEAD_DIM_MULTIPLE} and at most {MAX_HEAD_DIM}"
        raise _unsupported(fields, "head_dim", spec.head_dim, wanted)
    if spec.n_heads % spec.n_kv_heads:
        wanted = f"a divisor of num_attention_heads, {spec.n_heads}"
        raise _unsupported(fields, "num_key_value_heads", spec.n_kv_heads, wanted)


def _unsupported(
    fields: JsonFields, name: str, value: int, wanted: str
) -> UnsupportedModelConfigError:
    return UnsupportedModelConfigError(
        f"{fields.where(name)} is {value}, but the kernels need {wanted}. Choose another model."
    )
