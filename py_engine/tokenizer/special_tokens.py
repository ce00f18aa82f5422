"""The special tokens that a tokenizer.json puts around a text, such as [CLS] and [SEP].

Neither form of the wrapped library adds them here: the npm package cannot, and chat prompts bring
their own. Embedding models want them, so they are read off the `post_processor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SequenceTemplate:
    """Token ids that go before and after a single text."""

    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()

    def around(self, token_ids: Sequence[int]) -> list[int]:
        """Return `token_ids` in the template; as they are when they begin with its prefix already.

        So a caller may write the special tokens into the text, as WebLLM's users do.
        """
        ids, prefix = list(token_ids), list(self.prefix)
        if prefix and ids[: len(prefix)] == prefix:
            return ids
        return [*prefix, *ids, *self.suffix]


def sequence_template(post_processor: Mapping[str, Any] | None) -> SequenceTemplate:
    """Read the `post_processor` of a tokenizer.json.

    Source: the Rust crate `tokenizers`' TemplateProcessing, BertProcessing and RobertaProcessing;
    others add no tokens. Errors: KeyError, TypeError or ValueError for a wrong structure.
    """
    if post_processor is None:
        return SequenceTemplate()
    match post_processor["type"]:
        case "Sequence":
            return _nested(list(map(sequence_template, post_processor["processors"])))
        case "TemplateProcessing":
            return _from_pieces(post_processor["single"], post_processor["special_tokens"])
        case "BertProcessing" | "RobertaProcessing":
            (_, cls), (_, sep) = post_processor["cls"], post_processor["sep"]
            return SequenceTemplate((int(cls),), (int(sep),))
        case _:
            return SequenceTemplate()


def _nested(templates: Sequence[SequenceTemplate]) -> SequenceTemplate:
    """Return what remains of several processors, each of which wraps what the one before made."""
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    for template in templates:
        prefix, suffix = template.prefix + prefix, suffix + template.suffix
    return SequenceTemplate(prefix, suffix)


def _from_pieces(
    pieces: Sequence[Mapping[str, Any]], special_tokens: Mapping[str, Any]
) -> SequenceTemplate:
    before: list[int] = []
    after: list[int] = []
    side = before
    for piece in pieces:
        if "SpecialToken" in piece:
            side += map(int, special_tokens[piece["SpecialToken"]["id"]]["ids"])
        elif side is before:
            side = after
        else:
            raise ValueError("the text stands in the template twice")
    return SequenceTemplate(tuple(before), tuple(after))
