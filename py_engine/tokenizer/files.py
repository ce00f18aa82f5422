"""A tokenizer.json, checked and taken apart as far as we need it beside the wrapped library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from py_engine.errors import ModelFileFormatError
from py_engine.json_fields import shown
from py_engine.tokenizer.decoding import TokenDecoder, token_decoder
from py_engine.tokenizer.special_tokens import SequenceTemplate, sequence_template

_REMEDY = "Write it again with transformers' save_pretrained of the model's fast tokenizer."


@dataclass(frozen=True)
class TokenizerFile:
    """`text` is the JSON for the wrapped library, without truncation and padding.

    `tokens` gives the text of each id (None for holes). `added_ids` are those of tokens that are
    found in a text before anything else; the special ones are among them. `decoder` is a
    TokenDecoder, or the type of a decoder that has no streaming form. `template` has the special
    tokens around a text.
    """

    text: str
    tokens: list[str | None]
    added_ids: frozenset[int]
    special_ids: frozenset[int]
    decoder: TokenDecoder | str
    template: SequenceTemplate


def parse_tokenizer_json(text: str, source: str) -> TokenizerFile:
    """Parse and check the JSON in `text`, which came from `source`.

    Malformed JSON and wrong structure must be found here, because they abort the wasm instance of
    the library in the browser. Errors: ModelFileFormatError.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ModelFileFormatError(f"{source}: not valid JSON: {error}. {_REMEDY}") from error
    if not isinstance(data, dict):
        raise _wrong(source, "the file", data, "a JSON object")
    if data.get("truncation") or data.get("padding"):
        data["truncation"] = data["padding"] = None
        text = json.dumps(data, ensure_ascii=False)
    added = _added_tokens(data, source)
    decoder = data.get("decoder")
    if decoder is not None and not isinstance(decoder, dict):
        raise _wrong(source, "decoder", decoder, "an object or null")
    try:
        streaming = token_decoder(decoder)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _wrong(source, "decoder", decoder, "a decoder of tokenizers") from error
    post_processor = data.get("post_processor")
    try:
        template = sequence_template(post_processor)
    except (KeyError, TypeError, ValueError) as error:
        wanted = "a post-processor of tokenizers"
        raise _wrong(source, "post_processor", post_processor, wanted) from error
    return TokenizerFile(
        text,
        _token_list(_vocabulary(data, source) | added, source),
        frozenset(added.values()),
        frozenset(entry["id"] for entry in data.get("added_tokens") or () if entry.get("special")),
        streaming,
        template,
    )


def _vocabulary(data: Mapping[str, Any], source: str) -> dict[str, int]:
    """Return the ids of the model's own tokens (BPE, WordPiece and WordLevel map, Unigram list)."""
    model = data.get("model")
    if not isinstance(model, dict):
        raise _wrong(source, "model", model, "an object")
    vocab = model.get("vocab")
    if isinstance(vocab, list):
        try:
            return {token: index for index, (token, _score) in enumerate(vocab)}
        except (TypeError, ValueError) as error:
            raise _wrong(source, "model.vocab", vocab, "a list of [token, score]") from error
    if not isinstance(vocab, dict) or not all(isinstance(index, int) for index in vocab.values()):
        raise _wrong(source, "model.vocab", vocab, "an object of token to id")
    return vocab


def _added_tokens(data: Mapping[str, Any], source: str) -> dict[str, int]:
    entries = data.get("added_tokens") or []
    wanted = "a list of objects with an integer id and a string content"
    if not isinstance(entries, list):
        raise _wrong(source, "added_tokens", entries, wanted)
    added = {}
    for entry in entries:
        is_object = isinstance(entry, dict)
        if not is_object or not isinstance(entry.get("id"), int) or entry["id"] < 0:
            raise _wrong(source, "added_tokens", entry, wanted)
        if not isinstance(entry.get("content"), str):
            raise _wrong(source, "added_tokens", entry, wanted)
        added[entry["content"]] = entry["id"]
    return added


def _token_list(ids: Mapping[str, int], source: str) -> list[str | None]:
    if not ids:
        raise _wrong(source, "model.vocab", {}, "an object of token to id with at least one token")
    if min(ids.values()) < 0:
        raise _wrong(source, "model.vocab", min(ids.values()), "ids from 0 upward")
    tokens: list[str | None] = [None] * (max(ids.values()) + 1)
    for token, index in ids.items():
        tokens[index] = token
    return tokens


def _wrong(source: str, field: str, value: Any, wanted: str) -> ModelFileFormatError:
    return ModelFileFormatError(
        f"{source}: {field} is {shown(value)}, but must be {wanted}. {_REMEDY}"
    )
