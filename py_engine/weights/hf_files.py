"""The JSON files of a Hugging Face repository that say what stands beside its weights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from py_engine.json_fields import JsonFields
from py_engine.storage.source import NOT_THERE, ModelSource

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template.jinja",
)
_POOLING_FILE = "1_Pooling/config.json"
_MODULES_FILE = "modules.json"


@dataclass(frozen=True)
class HfFiles:
    """What is in a repository beside the weights; a file that is not there has no fields.

    `config` is of the language model: that of a model of several kinds of input stands in its
    `text_config`. `tokenizer_files` names the files there are, none where that is not known.
    `pooling` and `modules` are those of sentence-transformers.
    """

    config: JsonFields
    generation: JsonFields
    tokenizer_config: JsonFields
    tokenizer_files: tuple[str, ...] = ()
    pooling: JsonFields | None = None
    modules: tuple[str, ...] | None = None


async def read_hf_files(source: ModelSource, listed: Collection[str] | None) -> HfFiles:
    """Read a repository's files, of which `listed` are there (None: whatever answers).

    Errors: MissingFileError without config.json, ModelFileFormatError, those of the source.
    """

    async def optional(path: str) -> Any:
        if listed is not None and path not in listed:
            return None
        try:
            return await source.read_json(path)
        except NOT_THERE:
            return None

    async def fields(path: str) -> JsonFields:
        return JsonFields(await optional(path) or {}, path)

    config = text_config(JsonFields(await source.read_json(CONFIG_FILE), CONFIG_FILE))
    is_encoder = "max_position_embeddings" in config and "type_vocab_size" in config
    pooling = await optional(_POOLING_FILE) if is_encoder else None
    modules = await optional(_MODULES_FILE) if is_encoder else None
    return HfFiles(
        config=config,
        generation=await fields(GENERATION_FILE),
        tokenizer_config=await fields("tokenizer_config.json"),
        tokenizer_files=tuple(name for name in TOKENIZER_FILES if name in (listed or ())),
        pooling=None if pooling is None else JsonFields(pooling, _POOLING_FILE),
        modules=None if modules is None else _module_types(modules),
    )


def text_config(config: JsonFields) -> JsonFields:
    """Return the fields of the language model in a `config.json`.

    A model of several kinds of input has them in `text_config`; what stands beside that, such as
    ids of special tokens, holds too where the text's own configuration says nothing.
    """
    if "text_config" not in config:
        return config
    text = {k: v for k, v in config.object("text_config").data.items() if v is not None}
    around = {name: value for name, value in config.data.items() if name != "text_config"}
    return JsonFields({**around, **text}, f"{config.source}, text_config")


def _module_types(modules: Any) -> tuple[str, ...]:
    fields = JsonFields({"modules": modules}, _MODULES_FILE)
    return tuple(module.string("type") for module in fields.objects("modules"))
