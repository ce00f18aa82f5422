"""Phi 1, 1.5 and 2: attention and a plain MLP side by side behind one LayerNorm, biases everywhere.

Of each head only a part is rotated. Reads the fields of Hugging Face and those of the first
checkpoints, which MLC took over as `phi-msft`.
"""

from __future__ import annotations

from py_engine.config import ChatConfig
from py_engine.kernels.norm import Norm
from py_engine.models.common import checked, present, read_activation, read_lengths, refuse
from py_engine.models.family import Family
from py_engine.models.rope import make_rope, rope_settings, rotary_dim
from py_engine.models.spec import Block, DecoderSpec, Heads, Layer, Mlp
from py_engine.weights.parameters import FileKind, NameTable, linear_names, named, norm_names

DEFAULT_ROTARY_FACTOR = 0.5


def phi_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a Phi into a spec.

    Errors: UnsupportedModelConfigError for a value that the kernels cannot run,
    ModelFileFormatError for a missing or wrong field.
    """
    fields = config.model_fields()
    refuse(fields, qk_layernorm=False, tie_word_embeddings=False)
    hidden_size = fields.integer(present(fields, "hidden_size", "n_embd"), minimum=1)
    n_heads = fields.integer(present(fields, "num_attention_heads", "n_head"), minimum=1)
    n_kv_heads = fields.integer(present(fields, "num_key_value_heads", "n_head_kv"), 0, minimum=0)
    inner = fields.integer(present(fields, "intermediate_size", "n_inner"), 0, minimum=0)
    eps = fields.number(present(fields, "layer_norm_eps", "layer_norm_epsilon"), 1e-5, above=0)
    head_dim = hidden_size // n_heads
    rotated = fields.integer("rotary_dim", 0, minimum=0) or rotary_dim(
        fields, head_dim, DEFAULT_ROTARY_FACTOR
    )
    lengths = read_lengths(config)
    n_layers = fields.integer(present(fields, "num_hidden_layers", "n_layer"), minimum=1)
    spec = DecoderSpec(
        hidden_size=hidden_size,
        vocab_size=config.vocab_size,
        active_vocab_size=config.active_vocab_size,
        # MLC writes 0 where a size follows from the others.
        heads=Heads(
            n_heads, n_kv_heads or n_heads, head_dim, rotated, qkv_bias=True, output_bias=True
        ),
        mlp=Mlp(
            inner or 4 * hidden_size,
            read_activation(fields, ("hidden_act", "activation_function"), "gelu_new"),
            gated=False,
            bias=True,
        ),
        norm=Norm("layer", eps, bias=True),
        layers=tuple(map(Layer, lengths.windows([None] * n_layers))),
        ropes=(make_rope(rope_settings(fields), rotated, lengths.rope_context),),
        context_window_size=lengths.context,
        prefill_chunk_size=lengths.chunk,
        block=Block(mlp_norm=False, parallel=True),
        lm_head_bias=True,
    )
    return checked(spec, fields)


_MSFT = "transformer.h.{i}"
_LAYER = "model.layers.{i}"

_MLC_NAMES: NameTable = {
    "embedding": named("transformer.embd"),
    **norm_names("layers.{i}.input_norm", f"{_MSFT}.ln"),
    **linear_names("layers.{i}.qkv", f"{_MSFT}.mixer.Wqkv"),
    **linear_names("layers.{i}.output", f"{_MSFT}.mixer.out_proj"),
    **linear_names("layers.{i}.up", f"{_MSFT}.mlp.fc1"),
    **linear_names("layers.{i}.down", f"{_MSFT}.mlp.fc2"),
    **norm_names("final_norm", "lm_head.ln"),
    **linear_names("lm_head", "lm_head.linear"),
}

_HF_NAMES: NameTable = {
    "embedding": named("model.embed_tokens"),
    **norm_names("layers.{i}.input_norm", f"{_LAYER}.input_layernorm"),
    **linear_names("layers.{i}.qkv", *(f"{_LAYER}.self_attn.{part}_proj" for part in "qkv")),
    **linear_names("layers.{i}.output", f"{_LAYER}.self_attn.dense"),
    **linear_names("layers.{i}.up", f"{_LAYER}.mlp.fc1"),
    **linear_names("layers.{i}.down", f"{_LAYER}.mlp.fc2"),
    **norm_names("final_norm", "model.final_layernorm"),
    **linear_names("lm_head", "lm_head"),
}

PHI_NAMES: dict[FileKind, NameTable] = {"mlc": _MLC_NAMES, "hf": _HF_NAMES}

PHI_MSFT_NAMES: dict[FileKind, NameTable] = {
    "mlc": _MLC_NAMES,
    "hf": {**_MLC_NAMES, "embedding": named("transformer.embd.wte")},
}

PHI = Family(phi_spec, PHI_NAMES)
PHI_MSFT = Family(phi_spec, PHI_MSFT_NAMES)
