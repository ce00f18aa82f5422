"""The parts of a tokenizer.json that depend on its kind: how it cuts a text, merges and decodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
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
)

_SPACE = "▁"
_CONTINUES = "##"
_PADDING = re.compile(r"\[PAD\d+\]")


def token_text(vocabulary: Vocabulary, index: int) -> str:
    """Return a token as the library has to know it.

    Added tokens of sentencepiece are compared with the text as it is, where spaces are still
    spaces. Of BERT's tokens llama.cpp marks those that begin a word, instead of the others.
    """
    token, kind = vocabulary.tokens[index], vocabulary.kinds[index]
    if vocabulary.model == "llama" and kind == USER_DEFINED:
        return token.replace(_SPACE, " ")
    if vocabulary.model == "bert" and kind not in (CONTROL, UNKNOWN):
        begins_word = token.startswith(_SPACE)
        return token.removeprefix(_SPACE) if begins_word else _CONTINUES + token
    return token


def has_space_prefix(fields: JsonFields) -> bool:
    """Tell whether sentencepiece puts a space before a text."""
    return fields.boolean(f"{KEY}add_space_prefix", True)


def _token_ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Return the ids of all tokens but those that only fill the vocabulary up."""
    texts = vocabulary.tokens
    if vocabulary.model != "gpt2":
        texts = [token_text(vocabulary, index) for index in range(len(texts))]
    ids: dict[str, int] = {}
    for index, (text, kind) in enumerate(zip(texts, vocabulary.kinds, strict=True)):
        if kind != UNUSED or not _PADDING.fullmatch(text):
            ids.setdefault(text, index)
    return ids


def byte_level(vocabulary: Vocabulary, fields: JsonFields) -> dict[str, Any]:
    """GPT-2's: bytes as printable characters, merged as the file lists it."""
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


def sentencepiece(vocabulary: Vocabulary, fields: JsonFields) -> dict[str, Any]:
    """Llama's: characters, merged by the scores of what they make, and bytes for what is left."""
    prefix = has_space_prefix(fields)
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


def wordpiece(vocabulary: Vocabulary, fields: JsonFields) -> dict[str, Any]:
    """BERT's: the longest token at each place of a word.

    Files do not say whether letters are lowered: they are where no token has a capital.
    """
    ids = _token_ids(vocabulary)
    words = (text for index, text in enumerate(vocabulary.tokens) if _is_word(vocabulary, index))
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": not any(word != word.lower() for word in words),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": _CONTINUES, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": vocabulary.text("unknown") or "[UNK]",
            "continuing_subword_prefix": _CONTINUES,
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }


def _is_word(vocabulary: Vocabulary, index: int) -> bool:
    return vocabulary.kinds[index] == NORMAL and not vocabulary.tokens[index].startswith("▁[")


TOKENIZERS: Mapping[str, Callable[[Vocabulary, JsonFields], dict[str, Any]]] = {
    "gpt2": byte_level,
    "llama": sentencepiece,
    "bert": wordpiece,
}
"""By `tokenizer.ggml.model`."""
