"""Writes the tokenizer of a GGUF file as the tokenizer.json that the `tokenizers` library reads."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from typing import Any

from py_engine.errors import UnsupportedTokenizerFilesError
from py_engine.json_fields import JsonFields, shown
from py_engine.weights.gguf_tokenizer_kinds import TOKENIZERS, has_space_prefix, token_text
from py_engine.weights.gguf_vocabulary import (
    CONTROL,
    KEY,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
    read_vocabulary,
)

_EMBEDDED = "tokenizer.huggingface.json"
_TEMPLATE = "tokenizer.chat_template"

_AROUND = {
    "gpt2": (("bos", "bos", False), ("eos", "eos", False)),
    "llama": (("bos", "bos", True), ("eos", "eos", False)),
    "bert": (("bos", "bos", True), ("seperator", "sep", True)),
}
"""By kind of tokenizer: the special tokens around a text, their flags, and what these are if unset.

GGUF spells "seperator" so.
"""

_TOKEN_ROLES = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "pad_token": "padding",
}


def gguf_tokenizer_json(
    metadata: Mapping[str, Any], file: str, vocabulary: Vocabulary | None = None
) -> str:
    """Return the tokenizer.json of a GGUF file's metadata; `file` names the file in errors.

    `vocabulary` is the metadata's, where it was read before.

    Errors: UnsupportedTokenizerFilesError for a kind of tokenizer that is not known,
    ModelFileFormatError for wrong metadata.
    """
    embedded = metadata.get(_EMBEDDED)
    if isinstance(embedded, str):
        return embedded
    vocabulary = vocabulary or read_vocabulary(metadata, file)
    fields = JsonFields(metadata, file)
    make = TOKENIZERS.get(vocabulary.model)
    if make is None:
        raise UnsupportedTokenizerFilesError(
            f"{fields.where(f'{KEY}model')} is {shown(vocabulary.model)}, but only gpt2 "
            "(byte-level BPE), llama (sentencepiece's BPE) and bert (WordPiece) can be read. "
            "Choose a model with such a tokenizer, or the model's safetensors, which bring a "
            "tokenizer.json."
        )
    common = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(_added_tokens(vocabulary, _eats_spaces(vocabulary, fields))),
        "post_processor": _post_processor(vocabulary, fields),
    }
    return json.dumps(common | make(vocabulary, fields), ensure_ascii=False)


def gguf_tokenizer_config(
    metadata: Mapping[str, Any], file: str, vocabulary: Vocabulary | None = None
) -> dict[str, Any]:
    """Return the content of tokenizer_config.json: special tokens and chat templates.

    `vocabulary` as in `gguf_tokenizer_json`. Errors: ModelFileFormatError.
    """
    vocabulary = vocabulary or read_vocabulary(metadata, file)
    fields = JsonFields(metadata, file)
    tokens = {name: vocabulary.text(role) for name, role in _TOKEN_ROLES.items()}
    template = fields.string(_TEMPLATE, "")
    names = fields.strings("tokenizer.chat_templates", ())
    if template and names:
        named = {"default": template} | {n: fields.string(f"{_TEMPLATE}.{n}") for n in names}
        templates: Any = [{"name": name, "template": text} for name, text in named.items()]
    else:
        templates = template or None
    known = {name: text for name, text in tokens.items() if text is not None}
    return known | ({} if templates is None else {"chat_template": templates})


def gguf_tokenizer_info(vocabulary: Vocabulary, fields: JsonFields) -> dict[str, Any]:
    """Return MLC's `tokenizer_info`: how tokens become text."""
    methods = {"gpt2": "byte_level", "llama": "byte_fallback"}
    prefix = vocabulary.model == "llama" and has_space_prefix(fields)
    return {
        "token_postproc_method": methods.get(vocabulary.model, "raw"),
        "prepend_space_in_encode": prefix,
        "strip_space_in_decode": prefix,
    }


def _eats_spaces(vocabulary: Vocabulary, fields: JsonFields) -> frozenset[str]:
    """Return the tokens after which spaces and newlines of a text are dropped.

    Files do not say it; of the architectures here it is so for Phi 3's special tokens. Source:
    llama.cpp, "set attributes by model/tokenizer/architecture name".
    """
    is_phi3 = fields.value("general.architecture") == "phi3" and vocabulary.model == "llama"
    if not is_phi3:
        return frozenset()
    special = {
        token
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        if kind in (CONTROL, USER_DEFINED)
    }
    return frozenset(special - {"<unk>", "<s>", "<|endoftext|>"})


def _added_tokens(vocabulary: Vocabulary, eats_spaces: Container[str]) -> Iterator[dict[str, Any]]:
    for index, kind in enumerate(vocabulary.kinds):
        if kind in (CONTROL, USER_DEFINED, UNKNOWN):
            yield {
                "id": index,
                "content": token_text(vocabulary, index),
                "single_word": False,
                "lstrip": False,
                "rstrip": vocabulary.tokens[index] in eats_spaces,
                "normalized": False,
                "special": kind != USER_DEFINED,
            }


def _post_processor(vocabulary: Vocabulary, fields: JsonFields) -> dict[str, Any] | None:
    """Return the special tokens that the model expects around a text."""
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single: list[dict[str, Any]] = [text]
    special: dict[str, Any] = {}
    for role, flag, default in _AROUND[vocabulary.model]:
        token = vocabulary.text(role)
        if token is None or not fields.boolean(f"{KEY}add_{flag}_token", default):
            continue
        entry = {"SpecialToken": {"id": token, "type_id": 0}}
        single = [entry, *single] if role == "bos" else [*single, entry]
        ids = [vocabulary.special_ids[role]]
        special[token] = {"id": token, "ids": ids, "tokens": [token]}
    if not special:
        return None
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": special,
    }
