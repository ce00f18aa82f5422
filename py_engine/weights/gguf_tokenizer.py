"""Writes the tokenizer of a GGUF file as the tokenizer.json that the `tokenizers` library reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from py_engine.errors import UnsupportedTokenizerFilesError
from py_engine.json_fields import JsonFields, shown
from py_engine.weights.gguf_pre_tokenizers import BYTE_LEVEL, PRE_TOKENIZERS, UNSTATED, PreTokenizer
from py_engine.weights.gguf_vocabulary import (
    BYTE,
    CONTROL,
    KEY,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    read_vocabulary,
)

_EMBEDDED = "tokenizer.huggingface.json"
_TEMPLATE = "tokenizer.chat_template"
_SPACE = "▁"
_PADDING = re.compile(r"\[PAD\d+\]")

_TOKEN_ROLES = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "pad_token": "padding",
}


def gguf_tokenizer_json(metadata: Mapping[str, Any], file: str) -> str:
    """Return the tokenizer.json of a GGUF file's metadata; `file` names the file in errors.

    Errors: UnsupportedTokenizerFilesError for a kind of tokenizer that is not known,
    ModelFileFormatError for wrong metadata.
    """
    embedded = metadata.get(_EMBEDDED)
    if isinstance(embedded, str):
        return embedded
    vocabulary = read_vocabulary(metadata, file)
    fields = JsonFields(metadata, file)
    if vocabulary.model == "gpt2":
        data = _byte_level(vocabulary, fields)
    elif vocabulary.model == "llama":
        data = _sentencepiece(vocabulary, fields)
    else:
        raise UnsupportedTokenizerFilesError(
            f"{fields.where(f'{KEY}model')} is {shown(vocabulary.model)}, but only gpt2 "
            "(byte-level BPE) and llama (sentencepiece's BPE) can be read. Choose a model with "
            "such a tokenizer, or the model's safetensors, which bring a tokenizer.json."
        )
    common = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(_added_tokens(vocabulary)),
        "post_processor": _post_processor(vocabulary, fields),
    }
    return json.dumps(common | data, ensure_ascii=False)


def gguf_tokenizer_config(metadata: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the content of tokenizer_config.json: special tokens and chat templates.

    Errors: ModelFileFormatError.
    """
    vocabulary, fields = read_vocabulary(metadata, file), JsonFields(metadata, file)
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
    is_byte_level = vocabulary.model == "gpt2"
    prefix = not is_byte_level and _has_space_prefix(fields)
    return {
        "token_postproc_method": "byte_level" if is_byte_level else "byte_fallback",
        "prepend_space_in_encode": prefix,
        "strip_space_in_decode": prefix,
    }


def _has_space_prefix(fields: JsonFields) -> bool:
    return fields.boolean(f"{KEY}add_space_prefix", True)


def _token_text(vocabulary: Vocabulary, index: int) -> str:
    """Return a token as the library has to know it.

    Tokens that are found in a text before anything else are compared with the text as it is, where
    spaces are still spaces.
    """
    token = vocabulary.tokens[index]
    is_literal = vocabulary.model == "llama" and vocabulary.kinds[index] == USER_DEFINED
    return token.replace(_SPACE, " ") if is_literal else token


def _added_tokens(vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    for index, kind in enumerate(vocabulary.kinds):
        if kind in (CONTROL, USER_DEFINED, UNKNOWN):
            yield {
                "id": index,
                "content": _token_text(vocabulary, index),
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": kind != USER_DEFINED,
            }


def _token_ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Return the ids of all tokens but those that only fill the vocabulary up."""
    ids: dict[str, int] = {}
    for index, kind in enumerate(vocabulary.kinds):
        text = _token_text(vocabulary, index)
        if not (kind == UNUSED and _PADDING.fullmatch(text)):
            ids.setdefault(text, index)
    return ids


def _byte_level(vocabulary: Vocabulary, fields: JsonFields) -> dict[str, Any]:
    pre_tokenizer = _pre_tokenizer(fields)
    ids = _token_ids(vocabulary)
    merges = []
    for merge in fields.strings(f"{KEY}merges"):
        left, _, right = merge.partition(" ")
        if left not in ids or right not in ids or left + right not in ids:
            raise fields.invalid(
                f"{KEY}merges", f"pairs of tokens that make a token, unlike {shown(merge)}"
            )
        merges.append((left, right))
    return {
        "normalizer": {"type": "NFC"} if pre_tokenizer.nfc else None,
        "pre_tokenizer": pre_tokenizer.pre_tokenizer_json(),
        "decoder": BYTE_LEVEL,
        "model": _bpe(ids, merges, ignore_merges=pre_tokenizer.ignore_merges),
    }


def _pre_tokenizer(fields: JsonFields) -> PreTokenizer:
    architecture = fields.value("general.architecture")
    name = fields.string(f"{KEY}pre", UNSTATED.get(architecture, "default"))
    if name not in PRE_TOKENIZERS:
        raise UnsupportedTokenizerFilesError(
            f"{fields.where(f'{KEY}pre')} is {shown(name)}, a pre-tokenizer that is not known. "
            f"Known are {', '.join(PRE_TOKENIZERS)}: choose a model with one of them, or the "
            "model's safetensors, which bring a tokenizer.json."
        )
    return PRE_TOKENIZERS[name]


def _sentencepiece(vocabulary: Vocabulary, fields: JsonFields) -> dict[str, Any]:
    prefix = _has_space_prefix(fields)
    ids = _token_ids(vocabulary)
    unknown = next((i for i, kind in enumerate(vocabulary.kinds) if kind == UNKNOWN), None)
    model = _bpe(
        ids,
        _merges_from_scores(vocabulary, _scores(vocabulary, fields)),
        unk_token=None if unknown is None else vocabulary.tokens[unknown],
        byte_fallback=BYTE in vocabulary.kinds,
    )
    normalizers = [{"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        normalizers.insert(0, {"type": "Prepend", "prepend": _SPACE})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }


def _scores(vocabulary: Vocabulary, fields: JsonFields) -> Sequence[float]:
    name = f"{KEY}scores"
    scores = fields.value(name)
    if (
        not isinstance(scores, list)
        or len(scores) != len(vocabulary.tokens)
        or not all(isinstance(score, float | int) for score in scores)
    ):
        raise fields.invalid(name, f"an array of {len(vocabulary.tokens)} numbers")
    return scores


def _merges_from_scores(vocabulary: Vocabulary, scores: Sequence[float]) -> list[tuple[str, str]]:
    """Return the merges that do what sentencepiece does: of neighbours, the best score first.

    A merge is any cut of a token into two others. Those of equal score are in the order that
    transformers gives them (`convert_slow_tokenizer.generate_merges`), the longer left part first.
    """
    pieces = {
        token: score
        for token, kind, score in zip(vocabulary.tokens, vocabulary.kinds, scores, strict=True)
        if kind in (NORMAL, UNUSED)
    }
    found = [
        (score, cut, len(piece) - cut, piece)
        for piece, score in pieces.items()
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    ]
    found.sort(key=lambda merge: merge[:3], reverse=True)
    return [(piece[:cut], piece[cut:]) for _score, cut, _rest, piece in found]


def _bpe(
    ids: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    *,
    unk_token: str | None = None,
    byte_fallback: bool = False,
    ignore_merges: bool = False,
) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unk_token,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": unk_token is not None,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": ids,
        "merges": merges,
    }


def _post_processor(vocabulary: Vocabulary, fields: JsonFields) -> dict[str, Any] | None:
    """Return the special tokens that the model expects around a text."""
    is_spm = vocabulary.model == "llama"
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single: list[dict[str, Any]] = [text]
    special: dict[str, Any] = {}
    for role, default in (("bos", is_spm), ("eos", False)):
        token = vocabulary.text(role)
        if token is None or not fields.boolean(f"{KEY}add_{role}_token", default):
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
