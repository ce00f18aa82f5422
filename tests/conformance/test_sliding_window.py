"""Decoders with a sliding window and sinks against a dense model, and kept prefixes of them.

Tolerance of the logits as in `test_decoder.py`: 5e-3 of the largest, for the KV cache in f16.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from tests.conformance.cases import N_PROMPT
from tests.conformance.dense import dense_logits
from tests.conformance.fixtures import load_fixture
from tests.conformance.running import Decoded, decode_in_worker, decode_on_numpy, load_on_numpy
from tests.conformance.test_decoder import TOLERANCE, relative_error
from tests.conftest import EngineWorker
from tests.support.numpy_device import NumpyDevice

GREEDY = SamplingParams(temperature=0)
CASES = [
    ("mistral_window_24_q0f32", 20, 3, 32),
    ("mistral_window_24_q0f32", 9, 8, 5),
    ("mha_untied_q4f32", 40, 4, 16),
]
"""Fixture, window, sinks, chunk. The last is a Llama that was not made for a window."""


@pytest.mark.parametrize("name", ["mistral_window_24_q0f32", "mistral_window_45_q4f16"])
def test_dense_model_without_sinks_equals_transformers(name: str) -> None:
    fixture = load_fixture(name)
    window = fixture.case.config["sliding_window"]
    dense = dense_logits(fixture, fixture.token_ids, window, 0)[fixture.positions]
    assert relative_error(dense, fixture.logits) < 2e-5


def options(window: int, sinks: int, chunk: int) -> dict[str, int]:
    return {
        "context_window_size": -1,
        "sliding_window_size": window,
        "attention_sink_size": sinks,
        "prefill_chunk_size": chunk,
    }


def assert_equals_dense(name: str, window: int, sinks: int, decoded: Decoded) -> None:
    fixture = load_fixture(name)
    tokens, logits = decoded.tokens, decoded.logits
    seen = [*fixture.prompt_ids, *tokens[:-1]]
    dense = dense_logits(fixture, seen, window, sinks, N_PROMPT - 1)
    without = dense_logits(fixture, seen, window, 0, N_PROMPT - 1)
    for token, found, expected, other in zip(tokens, logits, dense, without, strict=True):
        assert relative_error(found, expected) < TOLERANCE
        assert relative_error(other, expected) > 4 * TOLERANCE
        assert expected.max() - expected[token] <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize(("name", "window", "sinks", "chunk"), CASES)
def test_sinks_on_numpy(name: str, window: int, sinks: int, chunk: int, tmp_path: Path) -> None:
    decoded = decode_on_numpy(tmp_path, load_fixture(name), options(window, sinks, chunk))
    assert_equals_dense(name, window, sinks, decoded)


@pytest.mark.parametrize(("name", "window", "sinks", "chunk"), CASES)
def test_sinks_on_webgpu(
    name: str, window: int, sinks: int, chunk: int, tmp_path: Path, engine_worker: EngineWorker
) -> None:
    opts = options(window, sinks, chunk)
    decoded = decode_in_worker(tmp_path, load_fixture(name), engine_worker, opts)
    assert_equals_dense(name, window, sinks, decoded)


async def continue_from(model: Decoder, token_ids: list[int], kept: int) -> np.ndarray:
    """Return the logits after `token_ids`, whose first `kept` are in the cache."""
    model.start(GREEDY, kept)
    for start in range(kept, len(token_ids), model.prefill_chunk_size):
        await model.prefill(token_ids[start : start + model.prefill_chunk_size])
    model.first_logits()
    return np.array(await model.read_logits())


@pytest.mark.parametrize("sinks", [0, 3])
def test_kept_tokens_give_what_a_fresh_prefill_gives(sinks: int, tmp_path: Path) -> None:
    """A sequence of 75 tokens in a window of 24 and chunks of 10 can be cut back by 10, not 11."""
    fixture = load_fixture("mistral_window_24_q0f32")
    prompt, other = fixture.prompt_ids, fixture.greedy_ids

    async def run() -> None:
        model = await load_on_numpy(tmp_path, fixture, NumpyDevice(), options(24, sinks, 10))
        for n_cut in (0, 1, 5, 10):
            await continue_from(model, prompt, 0)
            drawn = [await model.draw(), *[await model.decode() for _ in range(5)]]
            length = N_PROMPT + 5 - n_cut
            assert model.reusable_tokens(length) == length
            cached = [*prompt, *(draw.token_id for draw in drawn[:5])]
            tokens = cached[:length] + other[20:32]
            kept = await continue_from(model, tokens, length)
            assert relative_error(await continue_from(model, tokens, 0), kept) < TOLERANCE
            assert model.reusable_tokens(len(tokens) - 11) == 0
            with pytest.raises(AssertionError):
                model.start(GREEDY, len(tokens) - 11)
        model.destroy()

    asyncio.run(run())


def test_short_sequences_keep_any_prefix(tmp_path: Path) -> None:
    fixture = load_fixture("mistral_window_24_q0f32")
    prompt = fixture.prompt_ids

    async def run() -> None:
        model = await load_on_numpy(tmp_path, fixture, NumpyDevice(), options(24, 3, 10))
        await continue_from(model, prompt[:33], 0)
        assert [model.reusable_tokens(n) for n in (1, 2, 5, 33, 40)] == [1, 2, 5, 33, 33]
        kept = await continue_from(model, [*prompt[:2], *prompt[40:60]], 2)
        fresh = await continue_from(model, [*prompt[:2], *prompt[40:60]], 0)
        assert relative_error(kept, fresh) < TOLERANCE
        model.destroy()

    asyncio.run(run())
