"""Tokenizer: what we do ourselves around the wrapped library, and its file errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from py_engine.chat_config import ChatConfig
from py_engine.errors import (
    MissingFileError,
    ModelFileFormatError,
    UnsupportedTokenizerFilesError,
)
from py_engine.tokenizer import Tokenizer, load_tokenizer, tokenizer_from_json, well_formed
from tests.support.memory_source import MemorySource
from tests.support.tokenizer_files import STREAMING_SHAPES, tokenizer_json

CONFIG = {
    "model_type": "llama",
    "quantization": "q4f16_1",
    "model_config": {},
    "vocab_size": 504,
    "context_window_size": 64,
}


def open_tokenizer(shape: str = "qwen2", **changes: Any) -> Tokenizer:
    data = json.loads(tokenizer_json(shape)) | changes
    return asyncio.run(tokenizer_from_json(json.dumps(data)))


def test_encode_adds_no_special_tokens_and_parses_those_in_the_text() -> None:
    tokenizer = open_tokenizer("qwen2")
    start, end = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>")
    ids = tokenizer.encode("<|im_start|>hi<|im_end|>")
    assert (ids[0], ids[-1]) == (start, end)
    assert tokenizer.special_ids.isdisjoint(ids[1:-1])
    assert tokenizer.encode("") == []


def test_decode_leaves_special_tokens_out_unless_asked() -> None:
    tokenizer = open_tokenizer("qwen2")
    ids = tokenizer.encode("<|im_start|>hi<|im_end|>")
    assert tokenizer.decode(ids) == "hi"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>hi<|im_end|>"


def test_added_tokens_that_are_not_special_are_kept_in_text() -> None:
    tokenizer = open_tokenizer("qwen2")
    ids = tokenizer.encode("<think>yes")
    assert tokenizer.token_to_id("<think>") == ids[0]
    assert tokenizer.decode(ids) == "<think>yes"


def test_decode_ignores_ids_outside_the_vocabulary() -> None:
    tokenizer = open_tokenizer("qwen2")
    ids = tokenizer.encode("fox")
    assert tokenizer.decode([-1, *ids, tokenizer.vocab_size, 10**6]) == "fox"
    assert tokenizer.token_bytes(10**6) == b""
    assert tokenizer.token(-1) is None


@pytest.mark.parametrize("shape", STREAMING_SHAPES)
def test_token_bytes_join_to_the_text(shape: str) -> None:
    tokenizer = open_tokenizer(shape)
    text = "The fox, 2026"
    joined = b"".join(tokenizer.token_bytes(index) for index in tokenizer.encode(text))
    assert joined.decode().lstrip(" ") == text


def test_token_to_id_of_an_unknown_token_is_none() -> None:
    assert open_tokenizer("gpt2").token_to_id("no such token") is None


def test_lone_surrogates_become_replacement_characters_and_swallow_nothing() -> None:
    assert well_formed("a\ud83db") == "a\ufffdb"
    assert well_formed("\ud83d\ude42") == "\U0001f642"
    tokenizer = open_tokenizer("qwen2")
    assert tokenizer.encode("a\ud83db") == tokenizer.encode("a\ufffdb")


def test_truncation_and_padding_in_the_file_are_ignored() -> None:
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 50},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    tokenizer = open_tokenizer("qwen2", truncation=truncation, padding=padding)
    text = "The quick brown fox"
    assert tokenizer.encode(text) == open_tokenizer("qwen2").encode(text)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": None}, "model is None"),
        ({"model": {"type": "BPE", "vocab": {"a": "b"}}}, "model.vocab"),
        ({"model": {"type": "Unigram", "vocab": [1]}}, "model.vocab"),
        ({"model": {"type": "BPE", "vocab": {}}, "added_tokens": []}, "model.vocab"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}}, "added_tokens": []}, "model.vocab"),
        ({"added_tokens": 5}, "added_tokens"),
        ({"added_tokens": ["x"]}, "added_tokens"),
        ({"added_tokens": [{"id": 1, "content": 2}]}, "added_tokens"),
        ({"decoder": 5}, "decoder"),
        ({"decoder": {"type": "Sequence", "decoders": [5]}}, "decoder"),
        ({"model": {"type": "Nonsense", "vocab": {"a": 1}}}, "tokenizers library"),
    ],
)
def test_wrong_structure_is_a_format_error(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelFileFormatError, match=named):
        open_tokenizer("qwen2", **changes)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{'a': 1}"])
def test_malformed_json_is_a_format_error(text: str) -> None:
    with pytest.raises(ModelFileFormatError, match=r"tokenizer\.json"):
        asyncio.run(tokenizer_from_json(text))


def test_decoders_without_bytes_encode_and_decode_but_do_not_stream() -> None:
    tokenizer = open_tokenizer("bert")
    assert tokenizer.decode(tokenizer.encode("the fox")) == "the fox"
    with pytest.raises(UnsupportedTokenizerFilesError, match="WordPiece"):
        tokenizer.detokenizer()


def test_load_reads_tokenizer_json_from_the_source() -> None:
    source = MemorySource({"tokenizer.json": tokenizer_json("qwen2")})
    tokenizer = asyncio.run(load_tokenizer(source, ChatConfig.from_json(CONFIG)))
    assert tokenizer.decode(tokenizer.encode("fox")) == "fox"


def test_load_without_tokenizer_json_says_how_to_make_one() -> None:
    config = ChatConfig.from_json(CONFIG | {"tokenizer_files": ["tokenizer.model"]})
    with pytest.raises(UnsupportedTokenizerFilesError, match="save_pretrained"):
        asyncio.run(load_tokenizer(MemorySource({}), config))


def test_load_of_a_missing_file_is_the_sources_error() -> None:
    with pytest.raises(MissingFileError):
        asyncio.run(load_tokenizer(MemorySource({}), ChatConfig.from_json(CONFIG)))
