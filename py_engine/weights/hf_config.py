"""Builds `mlc-chat-config.json` from the files of a Hugging Face model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from py_engine.errors import MissingFileError
from py_engine.json_fields import JsonFields
from py_engine.storage.source import parse_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template.jinja",
)
DEFAULT_PREFILL_CHUNK_SIZE = 2048
_CHATML_END = "<|im_end|>"


_POSITIONS = ("max_position_embeddings", "n_positions")
"""Names of the longest sequence."""


def chat_config_json(
    folder: Path,
    quantization: str,
    *,
    conv_template: Mapping[str, Any] | None = None,
    context_window_size: int | None = None,
    prefill_chunk_size: int | None = None,
) -> dict[str, Any]:
    """Return the content of `mlc-chat-config.json` for the model in `folder`.

    The context window defaults to `max_position_embeddings`. Sampling defaults are those of
    `generation_config.json`, the conversation template is ChatML.
    Errors: ModelFileFormatError for a bad field.
    """
    config = read_fields(folder / "config.json")
    generation = read_fields(folder / "generation_config.json")
    tokenizer = read_fields(folder / "tokenizer.json")
    positions = next(filter(config.__contains__, _POSITIONS), _POSITIONS[0])
    context = context_window_size or config.integer(positions, minimum=1)
    chunk = min(prefill_chunk_size or DEFAULT_PREFILL_CHUNK_SIZE, context)
    special = {
        name: (generation if name in generation else config).value(name)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id")
    }
    return {
        "version": "0.1.0",
        "model_type": config.string("model_type"),
        "quantization": quantization,
        "model_config": _model_config(config, context, chunk),
        "vocab_size": config.integer("vocab_size", minimum=1),
        # Windows of layers are a matter of the architecture: they stand in model_config.
        "context_window_size": context,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "prefill_chunk_size": chunk,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "temperature": generation.number("temperature", 1.0, minimum=0),
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": generation.number("repetition_penalty", 1.0, above=0),
        "top_p": generation.number("top_p", 1.0, above=0, maximum=1),
        "tokenizer_files": tokenizer_files(folder),
        "tokenizer_info": tokenizer_info(tokenizer),
        "conv_template": dict(conv_template or _chatml(tokenizer, special["eos_token_id"])),
        **{name: value for name, value in special.items() if value is not None},
    }


def hf_model_type(folder: Path) -> str:
    """Return `model_type` of the model in `folder`.

    Errors: MissingFileError without config.json, ModelFileFormatError for a bad field.
    """
    if not (folder / "config.json").is_file():
        raise MissingFileError(
            f"{folder / 'config.json'} does not exist. Give the folder of a Hugging Face model."
        )
    return read_fields(folder / "config.json").string("model_type")


def tokenizer_files(folder: Path) -> list[str]:
    """Return the names of the files in `folder` that belong to the tokenizer."""
    return [name for name in TOKENIZER_FILES if (folder / name).is_file()]


def tokenizer_info(tokenizer: JsonFields) -> dict[str, Any]:
    """Return how token strings become text, read off `tokenizer.json`.

    Source: MLC-LLM's `Tokenizer::DetectTokenizerInfo`.
    """
    decoders = _steps(tokenizer, "decoder", "decoders")
    normalizers = _steps(tokenizer, "normalizer", "normalizers")
    kinds = {step.get("type") for step in decoders}
    method = "byte_level" if "ByteLevel" in kinds else "raw"
    return {
        "token_postproc_method": "byte_fallback" if "ByteFallback" in kinds else method,
        "prepend_space_in_encode": any(step.get("type") == "Prepend" for step in normalizers),
        "strip_space_in_decode": "Strip" in kinds,
    }


def read_fields(path: Path) -> JsonFields:
    """Return a JSON file's fields, none where there is no file. Raises ModelFileFormatError."""
    text = path.read_text(encoding="utf-8") if path.is_file() else "{}"
    return JsonFields(parse_json(text, str(path)), str(path))


def _steps(tokenizer: JsonFields, name: str, members: str) -> list[Mapping[str, Any]]:
    step = tokenizer.object(name)
    return [child.data for child in step.objects(members)] if members in step else [step.data]


def _model_config(config: JsonFields, context: int, chunk: int) -> dict[str, Any]:
    """Return config.json's own fields, and beside them those of MLC."""
    return {
        **config.data,
        "context_window_size": context,
        "prefill_chunk_size": chunk,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
    }


def _chatml(tokenizer: JsonFields, eos: Any) -> dict[str, Any]:
    added = tokenizer.objects("added_tokens") if "added_tokens" in tokenizer else []
    ends = [token.integer("id") for token in added if token.value("content") == _CHATML_END]
    eos_ids = eos if isinstance(eos, list) else [eos] if eos is not None else []
    return {
        "name": "chatml",
        "system_template": "<|im_start|>system\n{system_message}<|im_end|>\n",
        "system_message": "",
        "render_empty_system_message": False,
        "add_role_after_system_message": True,
        "roles": {
            "user": "<|im_start|>user",
            "assistant": "<|im_start|>assistant",
            "tool": "<|im_start|>user",
        },
        "role_templates": {
            "user": "{user_message}",
            "assistant": "{assistant_message}",
            "tool": "{tool_message}",
        },
        "seps": ["<|im_end|>\n"],
        "role_content_sep": "\n",
        "role_empty_sep": "\n",
        "stop_str": [_CHATML_END],
        "stop_token_ids": ends or eos_ids,
    }


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write an indented JSON file."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
