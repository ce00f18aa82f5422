"""Models whose KV cache grows while they run, in a buffer for each KV head, as transformers has it.

The caches begin with room for a few tokens and grow in prefill and in decode, those of layers with
a window as far as their ring. A GPU that cannot bind a layer's cache has its heads in several.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from py_engine.errors import OutOfMemoryError
from py_engine.kernels import attention_shape
from py_engine.models import decoder_build, loader
from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.kv_cache import first_cache
from tests.conformance.fixtures import load_fixture
from tests.conformance.running import decode_in_worker, decode_on_numpy, load_on_numpy
from tests.conformance.test_decoder import assert_agrees
from tests.conftest import EngineWorker
from tests.support.small_gpu import SmallGpu

GREEDY = SamplingParams(temperature=0)
FIRST_TOKENS = 5
MODELS = ["gqa_tied_q4f16", "mistral_window_24_q0f32"]
CHUNK = {"prefill_chunk_size": 16}

PATCH = """
from functools import partial
from py_engine.kernels import attention_shape
from py_engine.models import attention_limits, decoder_build, loader
from py_engine.models.kv_cache import first_cache
attention_shape.SMALL_CACHE_BYTES = 0 if first_tokens else 512 << 10
if first_tokens:
    decoder_build.first_cache = partial(first_cache, first_tokens=first_tokens)
    loader.most_cache_bytes = lambda limits: 1
else:
    decoder_build.first_cache = first_cache
    loader.most_cache_bytes = attention_limits.most_cache_bytes
"""


@pytest.fixture
def small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let caches begin with room for a few tokens, with a buffer for each KV head."""
    monkeypatch.setattr(attention_shape, "SMALL_CACHE_BYTES", 0)
    monkeypatch.setattr(loader, "most_cache_bytes", lambda limits: 1)
    small = partial(first_cache, first_tokens=FIRST_TOKENS)
    monkeypatch.setattr(decoder_build, "first_cache", small)


@contextmanager
def small_caches_in(worker: EngineWorker) -> Iterator[None]:
    """Do so in a worker."""
    worker.run(PATCH, first_tokens=FIRST_TOKENS)
    try:
        yield
    finally:
        worker.run(PATCH, first_tokens=0)


@pytest.mark.usefixtures("small_caches")
@pytest.mark.parametrize("name", [*MODELS, "qwen3_5_tied_q4f16"])
def test_a_growing_cache_on_numpy(name: str, tmp_path: Path) -> None:
    fixture = load_fixture(name)
    assert_agrees(fixture, decode_on_numpy(tmp_path, fixture, CHUNK))


@pytest.mark.parametrize("name", MODELS)
def test_a_growing_cache_on_webgpu(name: str, tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_fixture(name)
    with small_caches_in(engine_worker):
        assert_agrees(fixture, decode_in_worker(tmp_path, fixture, engine_worker, CHUNK))


async def _greedy(model: Decoder, prompt: list[int], n_tokens: int) -> list[int]:
    model.start(GREEDY)
    for start in range(0, len(prompt), model.prefill_chunk_size):
        await model.prefill(prompt[start : start + model.prefill_chunk_size])
    tokens = [(await model.sample()).token_id]
    while len(tokens) < n_tokens:
        await model.reserve(1)
        tokens.append((await model.decode()).token_id)
    return tokens


@pytest.mark.usefixtures("small_caches")
def test_a_full_gpu_ends_one_reply_and_the_model_goes_on(tmp_path: Path) -> None:
    fixture, device = load_fixture(MODELS[0]), SmallGpu()
    prompt = fixture.prompt_ids[:4]

    async def run() -> None:
        model = await load_on_numpy(tmp_path, fixture, device)
        config = fixture.case.config
        n_heads = config["num_hidden_layers"] * config["num_key_value_heads"]
        assert sum(label.startswith("k_cache") for label in device.live_buffers) == n_heads > 2
        expected = await _greedy(model, prompt, 2)
        n_buffers = len(device.live_buffers)
        device.budget = device.held
        with pytest.raises(OutOfMemoryError, match="making room for 10 tokens in the KV cache"):
            await _greedy(model, prompt, 30)
        assert len(device.live_buffers) == n_buffers
        assert await _greedy(model, prompt, 2) == expected
        # What the sequence has is still there: it goes on where there is memory again.
        await _greedy(model, prompt, 1)
        await model.prefill([7])
        with pytest.raises(OutOfMemoryError):
            await model.prefill([8])
        device.budget = 1 << 30
        await model.prefill([8])
        model.first_logits()
        found = await model.read_logits()
        model.start(GREEDY)
        for chunk in (prompt, [7], [8]):
            await model.prefill(chunk)
        model.first_logits()
        assert (await model.read_logits()).tolist() == pytest.approx(found.tolist(), abs=1e-3)
        model.destroy()
        assert device.live_buffers == []

    asyncio.run(run())
