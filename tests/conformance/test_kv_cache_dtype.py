"""A KV cache in 8 bits: what it takes, and how little it changes."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.errors import ConfigurationFieldError
from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.tooling.steps import ROOT
from py_engine.weights.quantization import F32
from tests.conformance.fixtures import fixture_names, load_fixture
from tests.conformance.running import (
    Decoded,
    decode_in_worker,
    decode_on_numpy,
    load_folder_on_numpy,
    load_on_numpy,
)
from tests.conformance.test_batcher import check as check_batches
from tests.conformance.test_batcher import drive as drive_batches
from tests.conformance.test_growing_cache import small_caches  # noqa: F401 (a fixture)
from tests.conftest import EngineWorker
from tests.support.event_loop import in_event_loop
from tests.support.numpy_device import NumpyDevice

INT8 = {"kv_cache_dtype": "int8"}
ON_WEBGPU = ["gqa_tied_q4f16", "mistral_window_24_q0f32", "gemma2_q4f16"]
EMBEDDED = ROOT / "web" / "models" / "Llama-Storyteller-7M-q4f16_1-MLC"
N_TOKENS = 120


def relative_error(found: Decoded, expected: Decoded) -> float:
    """Return the largest error of the prefixes' logits, by their spread."""
    return max(
        float(np.abs(mine - theirs).max() / theirs.std())
        for mine, theirs in zip(found.prefix_logits, expected.prefix_logits, strict=True)
    )


@pytest.mark.sampled
@pytest.mark.parametrize("name", fixture_names())
def test_every_family_has_nearly_the_same_logits(name: str, tmp_path: Path) -> None:
    fixture = load_fixture(name)
    halfs = decode_on_numpy(tmp_path / "halfs", fixture)
    codes = decode_on_numpy(tmp_path / "codes", fixture, INT8)
    assert 0 < relative_error(codes, halfs) < 0.2
    assert len(codes.tokens) == len(halfs.tokens)


@pytest.mark.parametrize("name", ON_WEBGPU)
def test_webgpu_computes_what_numpy_does(
    name: str, tmp_path: Path, engine_worker: EngineWorker
) -> None:
    fixture = load_fixture(name)
    with ThreadPoolExecutor() as pool:  # this thread has the browser's event loop
        expected = pool.submit(decode_on_numpy, tmp_path / "numpy", fixture, INT8).result()
    found = decode_in_worker(tmp_path / "worker", fixture, engine_worker, INT8)
    # A code that f32 rounds to its neighbour moves logits more than f32 itself does.
    assert relative_error(found, expected) < 0.03


@pytest.mark.usefixtures("small_caches")
@in_event_loop
async def test_caches_grow_and_sequences_share_steps(tmp_path: Path) -> None:
    fixture, device = load_fixture("gqa_tied_q4f16"), NumpyDevice()
    model = await load_on_numpy(tmp_path, fixture, device, INT8)
    found = await drive_batches(model, fixture.prompt_ids, len(fixture.greedy_ids), [])
    model.destroy()
    assert device.live_buffers == []
    check_batches(found | {"greedy": fixture.greedy_ids}, "gqa_tied_q4f16")


@in_event_loop
async def test_it_takes_little_more_than_half(tmp_path: Path) -> None:
    fixture, sizes = load_fixture("gqa_tied_q4f16"), []
    for opts in ({}, INT8):
        device = NumpyDevice()
        model = await load_on_numpy(tmp_path, fixture, device, opts)
        sizes.append(sum(b.nbytes for b in device.buffers if "_cache " in b.label))
        model.destroy()
    head_dim = model.spec.heads.head_dim
    assert sizes[1] / sizes[0] == pytest.approx((head_dim + 4) / (2 * head_dim), rel=0.01)


@pytest.mark.parametrize("value", ["fp8", 8, ""])
def test_other_values_are_refused(value: Any) -> None:
    data = {"model_type": "llama", "quantization": "q4f16_1", "model_config": {}, "vocab_size": 9}
    with pytest.raises(ConfigurationFieldError, match="kv_cache_dtype"):
        ChatConfig.from_json(
            data | {"context_window_size": 64}, chat_opts={"kv_cache_dtype": value}
        )


def test_quality_with_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    """Compare the distributions after every token of a text that the model itself wrote."""
    expected, found, tokens = asyncio.run(distributions())
    divergence = (np.exp(expected) * (expected - found)).sum(axis=1)
    same_first = (expected.argmax(axis=1) == found.argmax(axis=1)).mean()
    rows = np.arange(len(tokens))
    perplexities = [float(np.exp(-each[rows, tokens].mean())) for each in (expected, found)]
    with capsys.disabled():
        print(
            f"\nKV cache in int8, {len(tokens)} tokens: KL {divergence.mean():.2e} nats "
            f"(largest {divergence.max():.1e}), likeliest token the same {same_first:.1%}, "
            f"perplexity {perplexities[1]:.4f} for {perplexities[0]:.4f}"
        )
    assert divergence.mean() < 1e-3
    assert same_first > 0.97
    assert perplexities[1] < 1.01 * perplexities[0]


async def distributions() -> tuple[F32, F32, list[int]]:
    """Return the log-probabilities with a cache in f16 and in 8 bits, and the tokens after each."""
    halfs = await load_folder_on_numpy(EMBEDDED, NumpyDevice())
    codes = await load_folder_on_numpy(EMBEDDED, NumpyDevice(), INT8)
    sampling = SamplingParams(temperature=1, seed=5)
    text = [1]
    halfs.start(sampling)
    await halfs.prefill(text)
    text.append((await halfs.sample()).token_id)
    while len(text) < N_TOKENS:
        await halfs.reserve(1)
        text.append((await halfs.decode()).token_id)
    return await log_probabilities(halfs, text), await log_probabilities(codes, text), text[1:]


async def log_probabilities(model: Decoder, text: list[int]) -> F32:
    """Return the log-probabilities after each token of a text but the last."""
    model.start(SamplingParams(temperature=0))
    await model.prefill(text[:1])
    model.first_logits()
    rows = [np.array(await model.read_logits())]
    for token_id in text[1:-1]:
        await model.replay([token_id])
        rows.append(np.array(await model.read_logits()))
    logits = np.stack(rows).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    normalised: F32 = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return normalised
