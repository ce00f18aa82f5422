"""A model's tokens as xgrammar takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from py_engine.tokenizer import Tokenizer

Kind: TypeAlias = Literal["byte_level", "byte_fallback", "raw"]


@dataclass(frozen=True)
class Vocabulary:
    """The tokens by id, and how they stand for bytes.

    `tokens` has "" for tokens that a grammar must never take for text: special ones, which would
    else be allowed inside JSON strings, and holes. `size` is the width of the logits; ids from
    len(tokens) up to it are never allowed.
    """

    tokens: list[str]
    kind: Kind
    prepends_space: bool
    size: int
    stop_token_ids: frozenset[int]


def vocabulary_of(
    tokenizer: Tokenizer, vocab_size: int, stop_token_ids: frozenset[int]
) -> Vocabulary:
    """Return the vocabulary of a tokenizer for logits of `vocab_size`.

    Errors: UnsupportedTokenizerFilesError where single tokens do not stand for bytes.
    """
    decoder = tokenizer.decoder
    special = tokenizer.special_ids | stop_token_ids
    tokens = [
        "" if token_id in special else tokenizer.token(token_id) or ""
        for token_id in range(min(tokenizer.vocab_size, vocab_size))
    ]
    # "byte_fallback" is also right without bytes, for tokens in which a sign stands for the space.
    plain: Kind = "byte_fallback" if decoder.byte_fallback or decoder.replacements else "raw"
    kind: Kind = "byte_level" if decoder.byte_level else plain
    within = frozenset(token_id for token_id in stop_token_ids if 0 <= token_id < vocab_size)
    return Vocabulary(tokens, kind, decoder.drop_in_first is not None, vocab_size, within)
