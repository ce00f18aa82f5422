"""Qwen 3.5, its text model: most layers have linear attention, every fourth has softmax attention.

That has gates: the sigmoid of a second half of each query head multiplies the head's output. The
rotary sections of images, video and text fall together for text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.errors import UnsupportedModelConfigError
from py_engine.json_fields import JsonFields, shown
from py_engine.kernels.attention_shape import QkNorm
from py_engine.kernels.delta import MAX_VALUE_DIM, VALUE_DIM_MULTIPLE, DeltaShape
from py_engine.kernels.formats import BLOCK
from py_engine.models.common import layer_types, refuse, unsupported, with_defaults
from py_engine.models.family import Family
from py_engine.models.llama import LLAMA_SPELLINGS, llama_spec
from py_engine.models.qwen2 import QWEN_NAMES
from py_engine.models.spec import DecoderSpec, Layer, LayerKind
from py_engine.weights.parameters import FileKind, NameTable, named

DEFAULT_HEAD_DIM = 256
DEFAULT_INTERVAL = 4
DEFAULT_ROTARY_FACTOR = 0.25

_KINDS: Mapping[str, LayerKind] = {"linear_attention": "delta", "full_attention": "attention"}


def qwen3_5_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a Qwen 3.5 model into a spec. Errors: those of `llama_spec`."""
    text = with_defaults(_text_config(config), partial_rotary_factor=DEFAULT_ROTARY_FACTOR)
    fields = text.model_fields()
    # The activation of the convolution is that of the MLP.
    refuse(fields, hidden_act="silu", attn_output_gate=True)
    spec = llama_spec(text, default_head_dim=DEFAULT_HEAD_DIM)
    kinds = _layer_kinds(fields, spec.n_layers)
    return replace(
        spec,
        heads=replace(spec.heads, gated=True, qk_norm=QkNorm("head_rms", spec.norm.eps)),
        layers=tuple(
            layer if kind == "attention" else Layer(kind=kind)
            for layer, kind in zip(spec.layers, kinds, strict=True)
        ),
        delta=_delta_shape(fields, spec.norm.eps) if "delta" in kinds else None,
    )


def _text_config(config: ChatConfig) -> ChatConfig:
    """Return a configuration of the text model alone, whose fields MLC has in `kwargs` too."""
    fields = config.model_fields()
    text = fields.object("text_config").data
    merged = {**fields.object("kwargs").data, **config.model_config}
    return replace(config, model_config={**merged, **text})


def _layer_kinds(fields: JsonFields, n_layers: int) -> list[LayerKind]:
    """Return what the layers are, by `layer_types` or else by `full_attention_interval`."""
    if fields.value("layer_types") is None:
        interval = fields.integer("full_attention_interval", DEFAULT_INTERVAL, minimum=1)
        kinds: list[LayerKind] = [
            "delta" if (index + 1) % interval else "attention" for index in range(n_layers)
        ]
    else:
        types = layer_types(fields, n_layers)
        unknown = next((kind for kind in types if kind not in _KINDS), None)
        if unknown is not None:
            raise UnsupportedModelConfigError(
                f"{fields.where('layer_types')} has {shown(unknown)}, but only "
                f"{' and '.join(_KINDS)} are supported. Choose another model."
            )
        kinds = [_KINDS[kind] for kind in types]
    if "attention" not in kinds:
        raise UnsupportedModelConfigError(
            f"{fields.where('layer_types')}: none of {n_layers} layers has full attention, but the "
            "engine needs one for its KV cache. Choose another model."
        )
    return kinds


def _delta_shape(fields: JsonFields, eps: float) -> DeltaShape:
    shape = DeltaShape(
        n_key_heads=fields.integer("linear_num_key_heads", 16, minimum=1),
        n_value_heads=fields.integer("linear_num_value_heads", 32, minimum=1),
        key_dim=fields.integer("linear_key_head_dim", 128, minimum=1),
        value_dim=fields.integer("linear_value_head_dim", 128, minimum=1),
        conv_size=fields.integer("linear_conv_kernel_dim", 4, minimum=2),
        eps=eps,
    )
    if shape.n_value_heads % shape.n_key_heads:
        wanted = f"a multiple of linear_num_key_heads, {shape.n_key_heads}"
        raise unsupported(fields, "linear_num_value_heads", shape.n_value_heads, wanted)
    if shape.value_dim % VALUE_DIM_MULTIPLE or shape.value_dim > MAX_VALUE_DIM:
        wanted = f"a multiple of {VALUE_DIM_MULTIPLE} and at most {MAX_VALUE_DIM}"
        raise unsupported(fields, "linear_value_head_dim", shape.value_dim, wanted)
    if shape.output_size % BLOCK:
        name = "linear_num_value_heads * linear_value_head_dim"
        raise unsupported(fields, name, shape.output_size, f"a multiple of {BLOCK}")
    return shape


_MODULE = "model.layers.{i}.linear_attn"
_PLUS_ONE = (
    *("layers.{i}.input_norm", "layers.{i}.mlp_norm", "layers.{i}.q_norm", "layers.{i}.k_norm"),
    "final_norm",
)


def _names(kind: FileKind, convolution: str) -> NameTable:
    parts = ("qkv", "z", "b", "a")
    return {
        **QWEN_NAMES[kind],
        "layers.{i}.delta.input": named(*(f"{_MODULE}.in_proj_{part}" for part in parts)),
        "layers.{i}.delta.conv": named(f"{_MODULE}.{convolution}"),
        "layers.{i}.delta.gates": named(f"{_MODULE}.A_log", f"{_MODULE}.dt_bias"),
        "layers.{i}.delta.norm": named(f"{_MODULE}.norm.weight"),
        "layers.{i}.delta.output": named(f"{_MODULE}.out_proj"),
    }


_HF_NAMES = _names("hf", "conv1d.weight")

QWEN3_5_NAMES: dict[FileKind, NameTable] = {
    "mlc": _names("mlc", "conv1d_weight"),
    "hf": {
        **_HF_NAMES,
        **{role: replace(_HF_NAMES[role], transform="add_one") for role in _PLUS_ONE},
    },
}
"""Norms scale by 1 + w, but for that of linear attention; MLC's files have the 1 in them."""

QWEN3_5 = Family(qwen3_5_spec, QWEN3_5_NAMES, LLAMA_SPELLINGS)
