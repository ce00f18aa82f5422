"""How byte-level BPE cuts a text before it merges, by `tokenizer.ggml.pre` of a GGUF file.

The patterns are those of the models' own tokenizer.json, of which llama.cpp's are copies for its
regex engine. Source: `llm_tokenizer_bpe` in llama.cpp's `src/llama-vocab.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class PreTokenizer:
    """Patterns that cut a text one after the other; what no pattern matches stays in one piece.

    `nfc` tells whether the text is normalised before. With `ignore_merges` a piece that is a token
    is taken as that token at once.
    """

    patterns: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool = False

    def pre_tokenizer_json(self) -> dict[str, Any]:
        """Return `pre_tokenizer` of a tokenizer.json."""
        splits = [
            {"type": "Split", "pattern": {"Regex": each}, "behavior": "Isolated", "invert": False}
            for each in self.patterns
        ]
        return {"type": "Sequence", "pretokenizers": [*splits, BYTE_LEVEL]}


BYTE_LEVEL: Mapping[str, Any] = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}
"""The step that writes bytes in GPT-2's printable alphabet."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TAIL_WITH_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_CAMEL_WORDS = tuple(
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]{upper}"
    rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]{lower}"
    for upper, lower in (("*", "+"), ("+", "*"))
)
_DIGIT = r"\p{N}"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_TAIL}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_TAIL}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = rf"{'|'.join(_CAMEL_WORDS)}|\p{{N}}|{_TAIL_WITH_SLASH}"
_GPT4O = (
    "|".join(f"{word}{_CONTRACTIONS}?" for word in _CAMEL_WORDS)
    + rf"|\p{{N}}{{1,3}}|{_TAIL_WITH_SLASH}"
)
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥\u0800-一가-\ud7ff]+", _DIGIT)
_FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")
_SEED_CODER = (
    rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))
_OF_GPT2 = PreTokenizer((_GPT2,))
_OF_DIGITS = PreTokenizer((_DIGIT, _GPT2))
_OF_QWEN2 = PreTokenizer((_QWEN2,), nfc=True)
_OF_GPT4 = PreTokenizer((_LLAMA3,))
_OF_LLAMA3 = replace(_OF_GPT4, ignore_merges=True)

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "default": _DEFAULT,
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        _OF_LLAMA3,
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), _OF_GPT4),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2"), _OF_QWEN2),
    **dict.fromkeys(("hunyuan", "solar-open", "grok-2"), PreTokenizer((_QWEN2,))),
    "qwen35": PreTokenizer((_QWEN35,), nfc=True),
    **dict.fromkeys(
        ("gpt-2", "phi-2", "mpt", "jais", "trillion", "gigachat", "a.x-4.0", "mellum", "exaone4"),
        _OF_GPT2,
    ),
    "olmo": replace(_OF_GPT2, nfc=True),
    **dict.fromkeys(
        ("starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b"), _OF_DIGITS
    ),
    "command-r": replace(_OF_DIGITS, nfc=True),
    "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "minimax-m2"), PreTokenizer((_GPT4O,))),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), PreTokenizer(_DEEPSEEK3)),
    "deepseek-coder": PreTokenizer(_DEEPSEEK_CODER),
    "falcon": PreTokenizer(_FALCON),
    "seed-coder": PreTokenizer((_SEED_CODER,)),
}
"""By the names that llama.cpp gives them."""

UNSTATED: Mapping[str, str] = {
    "llama": "llama-bpe",
    "qwen2": "qwen2",
    "gpt2": "gpt-2",
    "phi2": "gpt-2",
    "gptneox": "olmo",
    "stablelm": "olmo",
}
"""The pre-tokenizers of files from before they were stated, by `general.architecture`."""
