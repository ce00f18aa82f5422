"""What families read from a configuration in the same way, and the checks that all share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from py_engine.config import ChatConfig
from py_engine.errors import UnsupportedModelConfigError
from py_engine.json_fields import JsonFields, shown
from py_engine.kernels.attention_shape import HEAD_DIM_MULTIPLE, MAX_HEAD_DIM, SlidingWindow
from py_engine.kernels.formats import BLOCK
from py_engine.models.spec import MAX_SLIDING_POSITIONS, Activation, DecoderSpec, Heads

DEFAULT_PREFILL_CHUNK_SIZE = 256

_ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""Names of transformers' activations."""


@dataclass(frozen=True)
class Lengths:
    """How long sequences and prefill chunks may be, and the window of all layers, if any."""

    context: int
    chunk: int
    window: SlidingWindow | None

    @property
    def rope_context(self) -> int:
        """The most tokens that lie between a token and another that it sees."""
        return self.context if self.window is None else self.window.size

    def windows(self, sizes: Sequence[int | None]) -> list[SlidingWindow | None]:
        """Return the windows of layers that see at most `sizes` tokens (None: all before them).

        A window of all layers goes before; one that the context does not fill is none.
        """
        if self.window is not None:
            return [self.window] * len(sizes)
        return [
            SlidingWindow.for_chunks(size, 0, self.chunk)
            if size is not None and size < self.context
            else None
            for size in sizes
        ]


def read_lengths(config: ChatConfig) -> Lengths:
    """Return the lengths of a configuration.

    With `sliding_window_size`, every layer slides, and a sequence goes on past it.
    """
    slides = config.sliding_window_size > 0
    context = MAX_SLIDING_POSITIONS if slides else config.context_window_size
    chunk = config.prefill_chunk_size
    if chunk <= 0:
        chunk = DEFAULT_PREFILL_CHUNK_SIZE
    # Files give the 2048 of a large GPU; longer chunks cost memory and delay an interruption.
    if "prefill_chunk_size" not in config.overridden:
        chunk = min(chunk, DEFAULT_PREFILL_CHUNK_SIZE)
    chunk = min(chunk, context)
    if not slides:
        return Lengths(context, chunk, None)
    size, sinks = config.sliding_window_size, config.attention_sink_size
    return Lengths(context, chunk, SlidingWindow.for_chunks(size, sinks, chunk))


def window_sizes(fields: JsonFields, n_layers: int) -> list[int | None]:
    """Return how many tokens each layer sees (None: all), as Hugging Face's fields say it.

    `sliding_window` is the size. It holds for the layers that `layer_types` calls
    "sliding_attention"; without that list for all after the first `max_window_layers`.
    `use_sliding_window` false switches it off.
    """
    size = fields.integer("sliding_window", 0, minimum=0)
    if not size or not fields.boolean("use_sliding_window", True):
        return [None] * n_layers
    n_full = fields.integer("max_window_layers", 0, minimum=0)
    slides: list[bool] = [index >= n_full for index in range(n_layers)]
    if "layer_types" in fields:
        slides = [kind == "sliding_attention" for kind in layer_types(fields, n_layers)]
    return [size if does else None for does in slides]


def layer_types(fields: JsonFields, n_layers: int) -> tuple[str, ...]:
    """Return `layer_types`, one for each layer. Raises ModelFileFormatError for another number."""
    types = fields.strings("layer_types")
    if len(types) != n_layers:
        raise fields.invalid("layer_types", f"one string for each of {n_layers} layers")
    return types


def with_defaults(config: ChatConfig, **defaults: Any) -> ChatConfig:
    """Return a configuration with `defaults` for the fields that its `model_config` lacks."""
    given = {name: value for name, value in config.model_config.items() if value is not None}
    return replace(config, model_config={**defaults, **given})


def present(fields: JsonFields, *names: str) -> str:
    """Return the first of a field's `names` that is there, the first one where none is."""
    return next((name for name in names if name in fields), names[0])


def read_heads(fields: JsonFields, hidden_size: int, default_head_dim: int = 0) -> Heads:
    """Return the heads of a configuration with Llama's field names, without any options.

    `head_dim` follows from the other sizes where neither the file nor the family has one.
    """
    n_heads = fields.integer("num_attention_heads", minimum=1)
    head_dim = fields.integer("head_dim", default_head_dim, minimum=0)
    return Heads(
        n_heads=n_heads,
        # MLC writes 0 where a size follows from the others.
        n_kv_heads=fields.integer("num_key_value_heads", 0, minimum=0) or n_heads,
        head_dim=head_dim or hidden_size // n_heads,
    )


def read_activation(fields: JsonFields, names: Sequence[str], default: str) -> Activation:
    """Return the activation that the first of the fields `names` that is there gives.

    Raises UnsupportedModelConfigError for one that is not known.
    """
    name = present(fields, *names)
    value = fields.string(name, default)
    if value not in _ACTIVATIONS:
        raise UnsupportedModelConfigError(
            f"{fields.where(name)} is {shown(value)}, but only {', '.join(_ACTIVATIONS)} are "
            "supported. Choose a model with one of these activations."
        )
    return _ACTIVATIONS[value]


def refuse(fields: JsonFields, **wanted: object) -> None:
    """Raise UnsupportedModelConfigError for a field that is there and has another value."""
    for name, value in wanted.items():
        found = fields.value(name)
        if found is not None and found != value:
            raise UnsupportedModelConfigError(
                f"{fields.where(name)} is {shown(found)}, but only {shown(value)} is supported for "
                "this architecture. Choose another model."
            )


def checked(spec: DecoderSpec, fields: JsonFields) -> DecoderSpec:
    """Return `spec` if the kernels have code for its shapes.

    Raises UnsupportedModelConfigError, naming the field.
    """
    heads = spec.heads
    for name, size in (
        ("hidden_size", spec.hidden_size),
        ("intermediate_size", spec.mlp.intermediate_size),
        ("num_attention_heads * head_dim", heads.width),
    ):
        if size % BLOCK:
            raise unsupported(fields, name, size, f"a multiple of {BLOCK}")
    if heads.head_dim % HEAD_DIM_MULTIPLE or heads.head_dim > MAX_HEAD_DIM:
        wanted = f"a multiple of {HEAD_DIM_MULTIPLE} and at most {MAX_HEAD_DIM}"
        raise unsupported(fields, "head_dim", heads.head_dim, wanted)
    if heads.n_heads % heads.n_kv_heads:
        wanted = f"a divisor of num_attention_heads, {heads.n_heads}"
        raise unsupported(fields, "num_key_value_heads", heads.n_kv_heads, wanted)
    return spec


def unsupported(
    fields: JsonFields, name: str, value: int, wanted: str
) -> UnsupportedModelConfigError:
    """Return the error for a size that the kernels have no code for."""
    return UnsupportedModelConfigError(
        f"{fields.where(name)} is {value}, but the kernels need {wanted}. Choose another model."
    )
