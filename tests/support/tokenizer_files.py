"""Small tokenizer.json files in the shapes that real model families have, trained on the spot."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

CORPUS = (
    "The quick brown fox jumps over the lazy dog. The lazy dog sleeps; the fox doesn't.",
    "A model answers questions. It's 2026, and 1234567 tokens were read in 89.5 seconds!",
    "def main(argument: int) -> None:\n    print(f'hello {argument}')\n\n\n    return None",
    "Grüße aus Köln, ça va très bien, naïve café, Ελληνικά, русский язык, 日本語のテキスト, 한국어",
    "emoji 🙂👩‍👩‍👧 and combining e\u0301 and   several   spaces\tand tabs",
) * 4

TEXTS = (
    "",
    " ",
    "Hello, world!",
    "  two leading spaces and a trailing one ",
    "The quick brown fox",
    "line one\nline two\r\n\n\n",
    "Grüße, naïve café: ça va?",
    "e\u0301 vs \u00e9",
    "日本語 한국어 русский ελληνικά עברית",
    "🙂👩‍👩‍👧🇩🇪",
    "\u0000 and \ufffd and \ufeff and \u200b",
    "<|im_start|>user\nhi<|im_end|>",
    "a<|im_end|>b",
    "</s><s>",
    "▁▁ lower one eighth blocks ▁",
    "x" * 300,
    "<0x41> is not a byte",
    "1234567890 3.14159",
    "\U00010348\U0001f600 astral",
)

CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA_TOKENS = ("<unk>", "<s>", "</s>")


def _with_special(tokenizer: Tokenizer, tokens: tuple[str, ...]) -> dict[str, Any]:
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in tokens])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    return data


def _byte_level(pattern: str | None) -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE())
    if pattern is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        from tokenizers import Regex

        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _with_special(tokenizer, CHATML_TOKENS)


def _byte_fallback(prefix_space: bool) -> dict[str, Any]:
    space = normalizers.Replace(" ", "▁")
    steps = [normalizers.Prepend("▁"), space] if prefix_space else [space]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(steps)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix_space:
        parts.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(parts)
    names = [*LLAMA_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=names, limit_alphabet=60, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    data = _with_special(tokenizer, LLAMA_TOKENS)
    data["added_tokens"] = [e for e in data["added_tokens"] if not e["content"].startswith("<0x")]
    return data


def _unigram() -> dict[str, Any]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=220, special_tokens=list(LLAMA_TOKENS), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _with_special(tokenizer, LLAMA_TOKENS)


def _wordpiece() -> dict[str, Any]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    return data


QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_MAKERS = {
    "gpt2": lambda: _byte_level(None),
    "qwen2": lambda: _byte_level(QWEN_PATTERN),
    "llama2": lambda: _byte_fallback(prefix_space=True),
    "gemma": lambda: _byte_fallback(prefix_space=False),
    "metaspace": _unigram,
    "bert": _wordpiece,
}
SHAPES = tuple(_MAKERS)
STREAMING_SHAPES = tuple(shape for shape in SHAPES if shape != "bert")


@cache
def tokenizer_json(shape: str) -> str:
    """Return the text of a tokenizer.json of that shape (see SHAPES)."""
    return json.dumps(_MAKERS[shape](), ensure_ascii=False)
