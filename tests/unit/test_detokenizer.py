"""Detokenizer: complete characters only, and the whole equals the full decode."""

from __future__ import annotations

import asyncio

import pytest

from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from py_engine.tokenizer.decoding import TokenDecoder, token_decoder
from tests.support.tokenizer_files import STREAMING_SHAPES, TEXTS, tokenizer_json


def open_tokenizer(shape: str) -> Tokenizer:
    return asyncio.run(tokenizer_from_json(tokenizer_json(shape)))


def stream(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = tokenizer.detokenizer()
    return [*(detokenizer.put(index) for index in ids), detokenizer.finish()]


@pytest.mark.parametrize("shape", STREAMING_SHAPES)
def test_pieces_join_to_the_full_decode(shape: str) -> None:
    tokenizer = open_tokenizer(shape)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids), text


def test_no_piece_holds_half_a_character() -> None:
    tokenizer = open_tokenizer("gpt2")
    ids = tokenizer.encode("🙂")
    assert len(ids) > 1
    pieces = stream(tokenizer, ids)
    assert pieces[: len(ids) - 1] == [""] * (len(ids) - 1)
    assert "".join(pieces) == "🙂"


def test_ids_that_end_inside_a_character_finish_with_a_replacement() -> None:
    tokenizer = open_tokenizer("gpt2")
    ids = tokenizer.encode("🙂")[:-1]
    assert stream(tokenizer, ids)[-1] == "\ufffd"


def test_special_tokens_are_skipped_unless_asked() -> None:
    tokenizer = open_tokenizer("qwen2")
    ids = tokenizer.encode("<|im_start|>hi<|im_end|>")
    assert "".join(stream(tokenizer, ids)) == "hi"
    detokenizer = tokenizer.detokenizer(skip_special_tokens=False)
    assert "".join(map(detokenizer.put, ids)) == "<|im_start|>hi<|im_end|>"


def test_unknown_ids_add_nothing() -> None:
    tokenizer = open_tokenizer("llama2")
    detokenizer = tokenizer.detokenizer()
    assert detokenizer.put(10**6) == detokenizer.put(-1) == detokenizer.finish() == ""


def test_byte_fallback_replaces_each_invalid_byte() -> None:
    tokenizer = open_tokenizer("llama2")
    ids = [tokenizer.token_to_id(f"<0x{byte:02X}>") or 0 for byte in (0xF0, 0x9F)]
    ids += tokenizer.encode("fox")
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids) == "\ufffd\ufffd fox"


def test_leading_space_is_stripped_once_and_only_at_the_start() -> None:
    tokenizer = open_tokenizer("llama2")
    pieces = stream(tokenizer, tokenizer.encode("  fox  dog"))
    assert "".join(pieces) == "  fox  dog"


def test_added_token_inside_the_byte_alphabet_decodes_as_bytes() -> None:
    decoder = TokenDecoder(byte_level=True)
    assert decoder.token_bytes("é") == b"\xe9"
    assert decoder.token_bytes("日") == "日".encode()


@pytest.mark.parametrize(
    ("decoder", "named"),
    [
        (None, "none"),
        ({"type": "WordPiece"}, "WordPiece"),
        ({"type": "CTC"}, "CTC"),
        ({"type": "Sequence", "decoders": [{"type": "BPEDecoder"}]}, "BPEDecoder"),
        ({"type": "Strip", "content": " ", "start": 1, "stop": 0}, "Strip"),
        ({"type": "Replace", "pattern": {"Regex": "x+"}, "content": "y"}, "Replace"),
    ],
)
def test_decoders_that_cannot_be_streamed_are_named(
    decoder: dict[str, object] | None, named: str
) -> None:
    assert token_decoder(decoder) == named


def test_old_metaspace_files_without_prefix_space_keep_the_first_space() -> None:
    decoder = token_decoder({"type": "Metaspace", "replacement": "_", "add_prefix_space": False})
    assert isinstance(decoder, TokenDecoder)
    assert decoder.token_bytes("_a", is_first=True) == b" a"
