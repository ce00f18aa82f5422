"""Tokenizer against PyPI `tokenizers` used directly, on files of every common shape."""

from __future__ import annotations

import asyncio
import random

import pytest
import tokenizers

from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from tests.support.tokenizer_files import SHAPES, STREAMING_SHAPES, TEXTS, tokenizer_json


def both(shape: str) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    text = tokenizer_json(shape)
    return asyncio.run(tokenizer_from_json(text)), tokenizers.Tokenizer.from_str(text)


@pytest.mark.parametrize("shape", SHAPES)
def test_encode_and_decode_equal_the_library(shape: str) -> None:
    ours, oracle = both(shape)
    for text in TEXTS:
        ids = oracle.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == ids, text
        for skip in (True, False):
            expected = oracle.decode(ids, skip_special_tokens=skip)
            assert ours.decode(ids, skip_special_tokens=skip) == expected, text


@pytest.mark.parametrize("shape", SHAPES)
def test_vocabulary_equals_the_library(shape: str) -> None:
    ours, oracle = both(shape)
    assert ours.vocab_size == oracle.get_vocab_size()
    for index in range(ours.vocab_size):
        token = oracle.id_to_token(index)
        assert ours.token(index) == token
        assert ours.token_to_id(token) == index
    special = {i for i, t in oracle.get_added_tokens_decoder().items() if t.special}
    assert ours.special_ids == special


@pytest.mark.parametrize("shape", STREAMING_SHAPES)
def test_streaming_random_ids_equals_the_library(shape: str) -> None:
    """Byte-fallback byte tokens are left out: the crate also replaces valid ones of a bad run."""
    ours, oracle = both(shape)
    rng = random.Random(7)
    pool = [i for i in range(ours.vocab_size) if not str(ours.token(i)).startswith("<0x")]
    for _ in range(500):
        ids = rng.choices(pool, k=rng.randrange(1, 10))
        detokenizer = ours.detokenizer()
        streamed = "".join(map(detokenizer.put, ids)) + detokenizer.finish()
        assert streamed == oracle.decode(ids, skip_special_tokens=True), ids


@pytest.mark.parametrize("shape", ["llama2", "gemma"])
def test_streaming_valid_runs_of_byte_tokens_equals_the_library(shape: str) -> None:
    ours, oracle = both(shape)
    rng = random.Random(8)
    for _ in range(200):
        text = "".join(rng.choices("aß日🙂\n é", k=rng.randrange(1, 8)))
        ids = [ours.token_to_id(f"<0x{byte:02X}>") or 0 for byte in text.encode()]
        detokenizer = ours.detokenizer()
        streamed = "".join(map(detokenizer.put, ids)) + detokenizer.finish()
        assert streamed == oracle.decode(ids)
