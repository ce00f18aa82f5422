"""The vocabulary in a GGUF file's metadata, checked: tokens, their kinds, and special ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from py_engine.json_fields import JsonFields

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Kinds of tokens, `tokenizer.ggml.token_type`. Source: sentencepiece's model format."""

KEY = "tokenizer.ggml."

END_TEXTS = frozenset(
    {
        *("<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>"),
        *(
            "<|end|>",
            "<end_of_turn>",
            "<EOT>",
            "<\uff5cend▁of▁sentence\uff5c>",
            "<end_of_utterance>",
        ),
    }
)
"""Special tokens that end a reply, whatever a file says of them. Source: llama.cpp, `llama_vocab`,
"maintain a list of tokens that cause end-of-generation"."""

_SPECIAL_IDS = ("bos", "eos", "unknown", "padding", "eot", "eom", "mask", "seperator")
# Where a file says nothing: sentencepiece's own, and the texts of BERT's.
_SPM_DEFAULTS = {"bos": 1, "eos": 2, "unknown": 0}
_BERT_DEFAULTS = {"bos": "[CLS]", "seperator": "[SEP]", "unknown": "[UNK]", "padding": "[PAD]"}


@dataclass(frozen=True)
class Vocabulary:
    """`kinds` has a kind for each token; `special_ids` has the ids of roles such as "bos"."""

    model: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    special_ids: Mapping[str, int]

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """The ids that end a reply, the stated end of text first."""
        stated = [
            self.special_ids[role] for role in ("eos", "eot", "eom") if role in self.special_ids
        ]
        known = [
            index
            for index, token in enumerate(self.tokens)
            if token in END_TEXTS and self.kinds[index] in (CONTROL, USER_DEFINED)
        ]
        return tuple(dict.fromkeys([*stated, *known]))

    def text(self, role: str) -> str | None:
        """Return the text of the special token of a role, if there is one."""
        index = self.special_ids.get(role)
        return None if index is None else self.tokens[index]


def _defaults(model: str, tokens: Sequence[str]) -> Mapping[str, int]:
    """Return the special ids that a kind of tokenizer has where a file says nothing."""
    if model == "llama":
        return _SPM_DEFAULTS
    if model != "bert":
        return {}
    return {role: tokens.index(text) for role, text in _BERT_DEFAULTS.items() if text in tokens}


def read_vocabulary(metadata: Mapping[str, Any], file: str) -> Vocabulary:
    """Check and return the vocabulary; `file` names the file in errors.

    Errors: ModelFileFormatError.
    """
    fields = JsonFields(metadata, file)
    model, tokens = fields.string(f"{KEY}model"), fields.strings(f"{KEY}tokens")
    kinds = fields.integers(f"{KEY}token_type", (NORMAL,) * len(tokens))
    if not tokens:
        raise fields.invalid(f"{KEY}tokens", "an array of at least one token")
    if len(kinds) != len(tokens):
        wanted = f"an array of {len(tokens)} numbers, one for each token"
        raise fields.invalid(f"{KEY}token_type", wanted)
    defaults = _defaults(model, tokens)
    special_ids = {
        role: index
        for role in _SPECIAL_IDS
        if (index := fields.integer(f"{KEY}{role}_token_id", defaults.get(role, -1))) >= 0
    }
    for role, index in special_ids.items():
        if index >= len(tokens):
            raise fields.invalid(f"{KEY}{role}_token_id", f"an id below {len(tokens)}")
    # Old files have no kinds: there the special tokens are known by their ids alone.
    known = list(kinds)
    for index in special_ids.values():
        known[index] = CONTROL if known[index] == NORMAL else known[index]
    return Vocabulary(model, tokens, known, special_ids)
