"""The vision tower of Gemma 3: SigLIP, and the projector of its patches, as in transformers."""

from __future__ import annotations

from typing import Any

from py_engine.config import ChatConfig
from py_engine.errors import UnsupportedModelConfigError
from py_engine.json_fields import JsonFields, shown
from py_engine.kernels.encoder import HEAD_DIM_MULTIPLE, MAX_HEAD_DIM
from py_engine.kernels.formats import BLOCK
from py_engine.models.gemma3 import text_config
from py_engine.models.vision_family import VisionFamily
from py_engine.models.vision_spec import N_CHANNELS, Filter, ImageProcessing, VisionSpec
from py_engine.weights.parameters import (
    NameTable,
    Spelling,
    Stored,
    linear_names,
    named,
    norm_names,
)

_FILTERS: dict[int, Filter] = {2: "bilinear", 3: "bicubic"}
"""By their numbers in PIL."""


def gemma3_vision_spec(config: ChatConfig) -> VisionSpec:
    """Turn the configuration of a Gemma 3 model with a tower into the tower's spec.

    Absent fields have transformers' defaults. Errors: UnsupportedModelConfigError for a value that
    the kernels cannot run, ModelFileFormatError for a wrong field.
    """
    fields = config.model_fields()
    vision = fields.object("vision_config")
    spec = VisionSpec(
        image_size=vision.integer("image_size", 224, minimum=1),
        patch_size=vision.integer("patch_size", 16, minimum=1),
        n_layers=vision.integer("num_hidden_layers", 12, minimum=1),
        hidden_size=vision.integer("hidden_size", 768, minimum=1),
        intermediate_size=vision.integer("intermediate_size", 3072, minimum=1),
        n_heads=vision.integer("num_attention_heads", 12, minimum=1),
        layer_norm_eps=vision.number("layer_norm_eps", 1e-6, above=0),
        n_tokens=fields.integer("mm_tokens_per_image", 256, minimum=1),
        output_size=text_config(config).model_fields().integer("hidden_size", minimum=1),
        begin_id=fields.integer("boi_token_index", 255_999, minimum=0),
        soft_id=fields.integer("image_token_index", 262_144, minimum=0),
        end_id=fields.integer("eoi_token_index", 256_000, minimum=0),
    )
    _check_variant(vision)
    _check_shapes(spec, vision)
    return spec


def gemma3_image_processing(preprocessor: JsonFields, spec: VisionSpec) -> ImageProcessing:
    """Return what `preprocessor_config.json` says becomes of pixels.

    Errors: UnsupportedModelConfigError for what the kernels do not do, ModelFileFormatError.
    """
    size = preprocessor.object("size")
    for name in ("height", "width"):
        if size.integer(name, spec.image_size) != spec.image_size:
            raise _unsupported(size, name, spec.image_size)
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if not preprocessor.boolean(name, True):
            raise _unsupported(preprocessor, name, True)
    if preprocessor.boolean("do_pan_and_scan", False):
        raise _unsupported(preprocessor, "do_pan_and_scan", False)
    number = preprocessor.integer("resample", 2)
    if number not in _FILTERS:
        raise _unsupported(preprocessor, "resample", "2 (bilinear) or 3 (bicubic)")
    defaults = ImageProcessing()
    return ImageProcessing(
        filter=_FILTERS[number],
        rescale=preprocessor.number("rescale_factor", defaults.rescale, above=0),
        mean=_channels(preprocessor, "image_mean", defaults.mean),
        std=_channels(preprocessor, "image_std", defaults.std),
    )


def _channels(
    fields: JsonFields, name: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    if name not in fields:
        return default
    values = fields.numbers(name)
    if len(values) != N_CHANNELS:
        raise fields.invalid(name, "an array of three numbers, for red, green and blue")
    return values[0], values[1], values[2]


def _check_variant(vision: JsonFields) -> None:
    for name, wanted in (
        ("model_type", "siglip_vision_model"),
        ("hidden_act", "gelu_pytorch_tanh"),
    ):
        if vision.string(name, wanted) != wanted:
            raise _unsupported(vision, name, wanted)
    if vision.integer("num_channels", N_CHANNELS) != N_CHANNELS:
        raise _unsupported(vision, "num_channels", N_CHANNELS)


def _check_shapes(spec: VisionSpec, vision: JsonFields) -> None:
    if spec.hidden_size % BLOCK or spec.hidden_size % spec.n_heads:
        wanted = f"a multiple of {BLOCK} and of num_attention_heads, {spec.n_heads}"
        raise _unsupported(vision, "hidden_size", wanted)
    if spec.head_dim % HEAD_DIM_MULTIPLE or spec.head_dim > MAX_HEAD_DIM:
        wanted = f"such that heads have a multiple of {HEAD_DIM_MULTIPLE}, at most {MAX_HEAD_DIM}"
        raise _unsupported(vision, "num_attention_heads", wanted)
    if spec.pooled_side < 1 or (spec.side // spec.pooled_side) ** 2 != spec.n_tokens:
        wanted = f"such that {spec.n_tokens} squares of patches (mm_tokens_per_image) fill an image"
        raise _unsupported(vision, "image_size", wanted)


def _unsupported(fields: JsonFields, name: str, wanted: Any) -> UnsupportedModelConfigError:
    return UnsupportedModelConfigError(
        f"{fields.where(name)} is {shown(fields.value(name))}, but only {wanted} is supported. "
        "Choose another model."
    )


_LAYER = "vision_tower.encoder.layers.{i}"
_ROLE = "vision.layers.{i}"

GEMMA3_VISION_NAMES: NameTable = {
    **norm_names("vision.final_norm", "vision_tower.post_layernorm"),
    **linear_names("vision.patches", "vision_tower.embeddings.patch_embedding"),
    "vision.positions": named("vision_tower.embeddings.position_embedding"),
    **norm_names(f"{_ROLE}.input_norm", f"{_LAYER}.layer_norm1"),
    **linear_names(f"{_ROLE}.qkv", *(f"{_LAYER}.self_attn.{part}_proj" for part in "qkv")),
    **linear_names(f"{_ROLE}.output", f"{_LAYER}.self_attn.out_proj"),
    **norm_names(f"{_ROLE}.mlp_norm", f"{_LAYER}.layer_norm2"),
    **linear_names(f"{_ROLE}.up", f"{_LAYER}.mlp.fc1"),
    **linear_names(f"{_ROLE}.down", f"{_LAYER}.mlp.fc2"),
    "vision.projection_norm": named(
        "multi_modal_projector.mm_soft_emb_norm.weight", transform="add_one"
    ),
    "vision.projection": Stored(
        ("multi_modal_projector.mm_input_projection_weight",), "transpose", ending=""
    ),
}
"""Names in Hugging Face's files; MLC's have no tower."""

GEMMA3_VISION_SPELLINGS = (
    Spelling(prefixes=(("vision_tower.", "vision_tower.vision_model."),)),
    Spelling(prefixes=(("", "model."),)),
    Spelling(
        prefixes=(
            ("vision_tower.", "model.vision_tower.vision_model."),
            ("", "model."),
        )
    ),
)

GEMMA3_VISION = VisionFamily(
    gemma3_vision_spec, gemma3_image_processing, GEMMA3_VISION_NAMES, GEMMA3_VISION_SPELLINGS
)
