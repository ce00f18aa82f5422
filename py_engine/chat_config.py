"""A model's own configuration, `mlc-chat-config.json`, merged with the application's overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from py_engine.errors import (
    AttentionSinkSizeError,
    ConfigurationFieldError,
    WindowSizeConfigurationError,
    WindowSizeSpecificationError,
)
from py_engine.json_fields import JsonFields

CHAT_CONFIG_FILE = "mlc-chat-config.json"

KvCacheDtype = Literal["float16", "int8"]
"""How keys and values are kept: "int8" is codes from -127 to 127 and an f32 scale for each head."""

ActivationDtype = Literal["float32", "float16", "int8"]
"""What products may round their input to: f16, in those of a chunk, or, in those with 4-bit codes,
"int8", codes from -127 to 127. Both have an f32 scale for every 32 columns."""

MAX_NUM_SEQUENCE = 4
"""`max_num_sequence` where nothing is said."""

MOST_SEQUENCES = 8
"""The largest `max_num_sequence`: the rows of the largest batch that there are kernels for."""


@dataclass(frozen=True)
class TokenizerInfo:
    """How MLC turns tokens back into text; `token_postproc_method` is "byte_level" and so on."""

    token_postproc_method: str = "byte_fallback"
    prepend_space_in_encode: bool = False
    strip_space_in_decode: bool = False

    @staticmethod
    def from_fields(fields: JsonFields) -> TokenizerInfo:
        """Read `tokenizer_info`, or the `token_table_postproc_method` of older files."""
        info = fields.object("tokenizer_info")
        legacy = fields.string("token_table_postproc_method", "byte_fallback")
        method = info.string("token_postproc_method", legacy).replace("-", "_")
        return TokenizerInfo(
            token_postproc_method=method,
            prepend_space_in_encode=info.boolean("prepend_space_in_encode", False),
            strip_space_in_decode=info.boolean("strip_space_in_decode", False),
        )


@dataclass(frozen=True)
class ChatConfig:
    """The fields of `mlc-chat-config.json` after `ModelRecord.overrides` and `chat_opts`.

    Sizes are in tokens; a window of -1 is off. With a sliding window a token sees at most
    `sliding_window_size` tokens, itself and the first `attention_sink_size` of the sequence
    included, and the sequence may become longer than that. Of `vocab_size` logits the first
    `active_vocab_size` are of tokens, the rest is padding. `max_num_sequence` replies (MLC LLM's
    name) are generated at once at most. `kv_cache_dtype` (vLLM's) is how keys and values are kept,
    `activation_dtype` what products may round their input to: unless said otherwise f16, but for a
    `quantization` of f32.
    `model_config` holds the architecture's hyper-parameters as they are in the file. `overridden`
    names the fields that `overrides` or `chat_opts` set, and `data` is the merged object itself.
    """

    file: str
    model_type: str
    quantization: str
    model_config: Mapping[str, Any]
    vocab_size: int
    active_vocab_size: int
    context_window_size: int
    sliding_window_size: int
    attention_sink_size: int
    prefill_chunk_size: int
    max_num_sequence: int
    kv_cache_dtype: KvCacheDtype
    activation_dtype: ActivationDtype
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    tokenizer_files: tuple[str, ...]
    tokenizer_info: TokenizerInfo
    conv_template: Mapping[str, Any] | str | None
    conv_config: Mapping[str, Any]
    pad_token_id: int
    bos_token_id: int
    eos_token_ids: tuple[int, ...]
    overridden: frozenset[str]
    data: Mapping[str, Any]

    @staticmethod
    def from_json(
        data: Any,
        *,
        file: str = CHAT_CONFIG_FILE,
        overrides: Mapping[str, Any] | None = None,
        chat_opts: Mapping[str, Any] | None = None,
    ) -> ChatConfig:
        """Merge and check a configuration: `{**data, **overrides, **chat_opts}`, as WebLLM does.

        Errors: ModelFileFormatError for a field of the file, ConfigurationFieldError for one of
        `overrides` or `chat_opts`, also for a window longer than the model's files state,
        WindowSizeConfigurationError and WindowSizeSpecificationError when not exactly one window
        size is positive, AttentionSinkSizeError for a sliding window without a number of sinks or
        with too many.
        """
        original = JsonFields(data, file)
        merged = dict(original.data)
        sources: dict[str, str] = {}
        for source, options in (("overrides", overrides), ("chat_opts", chat_opts)):
            for name, value in (options or {}).items():
                if value is not None:
                    merged[name] = value
                    sources[name] = source
        fields = JsonFields(merged, file, sources=sources)
        config = _chat_config(fields, frozenset(sources))
        _check_windows(config)
        _check_limit(config, fields, _longest_stated(original, config.model_fields()))
        return config

    def model_fields(self) -> JsonFields:
        """Return typed access to `model_config`."""
        return JsonFields(self.model_config, self.file, path="model_config")


def _chat_config(fields: JsonFields, overridden: frozenset[str]) -> ChatConfig:
    if "model_config" not in fields:
        raise fields.invalid("model_config", "an object, the architecture's hyper-parameters")
    model = fields.object("model_config")
    vocab_size = (fields if "vocab_size" in fields else model).integer("vocab_size", minimum=1)
    active = fields.integer("active_vocab_size", vocab_size, minimum=1)
    quantization = fields.string("quantization")

    def size(name: str, default: int, minimum: int = -1) -> int:
        return fields.integer(name, model.integer(name, default, minimum=-1), minimum=minimum)

    return ChatConfig(
        file=fields.source,
        model_type=fields.string("model_type"),
        quantization=quantization,
        model_config=model.data,
        vocab_size=vocab_size,
        active_vocab_size=min(active, vocab_size),
        context_window_size=size("context_window_size", -1),
        sliding_window_size=size("sliding_window_size", -1),
        attention_sink_size=size("attention_sink_size", -1),
        prefill_chunk_size=size("prefill_chunk_size", -1),
        kv_cache_dtype=cast(
            KvCacheDtype, _dtype(fields, "kv_cache_dtype", get_args(KvCacheDtype), "float16")
        ),
        activation_dtype=cast(
            ActivationDtype,
            _dtype(
                fields,
                "activation_dtype",
                get_args(ActivationDtype),
                "float32" if "f32" in quantization else "float16",
            ),
        ),
        max_num_sequence=fields.integer(
            "max_num_sequence", MAX_NUM_SEQUENCE, minimum=1, maximum=MOST_SEQUENCES
        ),
        temperature=fields.number("temperature", 1.0, minimum=0),
        top_p=fields.number("top_p", 1.0, maximum=1, above=0),
        presence_penalty=fields.number("presence_penalty", 0.0, minimum=-2, maximum=2),
        frequency_penalty=fields.number("frequency_penalty", 0.0, minimum=-2, maximum=2),
        repetition_penalty=fields.number("repetition_penalty", 1.0, above=0),
        tokenizer_files=fields.strings("tokenizer_files", ()),
        tokenizer_info=TokenizerInfo.from_fields(fields),
        conv_template=_conv_template(fields),
        conv_config=fields.object("conv_config").data,
        pad_token_id=fields.integer("pad_token_id", 0),
        bos_token_id=fields.integer("bos_token_id", 1),
        eos_token_ids=_eos_token_ids(fields),
        overridden=overridden,
        data=fields.data,
    )


def _dtype(fields: JsonFields, name: str, known: tuple[str, ...], default: str) -> str:
    """Return one of the known values, the default where nothing is said."""
    value = fields.string(name, default)
    if value not in known:
        raise fields.invalid(name, " or ".join(f'"{each}"' for each in known))
    return value


def _conv_template(fields: JsonFields) -> Mapping[str, Any] | str | None:
    value = fields.value("conv_template")
    if value is not None and not isinstance(value, str | Mapping):
        raise fields.invalid("conv_template", "an object or the name of a template")
    return value


def _eos_token_ids(fields: JsonFields) -> tuple[int, ...]:
    if isinstance(fields.value("eos_token_id"), list | tuple):
        return fields.integers("eos_token_id")
    return (fields.integer("eos_token_id", 2),)


def _check_windows(config: ChatConfig) -> None:
    context, sliding = config.context_window_size, config.sliding_window_size
    if context > 0 and sliding > 0:
        raise WindowSizeConfigurationError(
            f"{config.file}: context_window_size is {context} and sliding_window_size is "
            f"{sliding}, but only one of them may be positive. Set the other to -1 in chat_opts."
        )
    if context <= 0 and sliding <= 0:
        raise WindowSizeSpecificationError(
            f"{config.file}: context_window_size is {context} and sliding_window_size is "
            f"{sliding}, but one of them must be positive. Set context_window_size in chat_opts."
        )
    sinks = config.attention_sink_size
    if sliding > 0 and not 0 <= sinks < sliding:
        raise AttentionSinkSizeError(
            f"{config.file}: attention_sink_size is {sinks}, but must be from 0 to {sliding - 1} "
            f"with sliding_window_size {sliding}. Set it in chat_opts: 0 forgets all before the "
            "window, 4 keeps the first tokens, which most models need to go on well."
        )


def _longest_stated(file: JsonFields, model: JsonFields) -> int:
    """Return the most positions that the model is said to be good for, 0 where nothing is said."""
    sizes = ("context_window_size", "sliding_window_size")
    return max(
        *(file.integer(name, 0) for name in sizes),
        *(model.integer(name, 0) for name in (*sizes, "max_position_embeddings")),
    )


def _check_limit(config: ChatConfig, fields: JsonFields, limit: int) -> None:
    """Refuse a window that an application made longer than the model was made for."""
    for name in ("context_window_size", "sliding_window_size"):
        size = getattr(config, name)
        if name in config.overridden and 0 < limit < size:
            raise ConfigurationFieldError(
                f"{fields.where(name)} is {size}, but the model is made for at most {limit} tokens "
                f"({config.file}). Set it to {limit} or less, or choose a model with a longer "
                "context."
            )
