"""A KV cache in 8 bits: what it takes, and how little it changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.errors import ConfigurationFieldError
from tests.conformance.distributions import change_by
from tests.conformance.fixtures import fixture_names, load_fixture
from tests.conformance.running import (
    Decoded,
    decode_in_worker,
    decode_on_numpy,
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
N_TOKENS = 80
PAST_THE_OTHERS = {"gemma3_scaled_q0f32": 0.27, "qwen3_tied_q4f16": 0.27}
"""Tiny random models whose logits move by up to 0.26 of their spread; the others' by up to 0.18."""


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
    assert 0 < relative_error(codes, halfs) < PAST_THE_OTHERS.get(name, 0.2)
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
    change = change_by(INT8, N_TOKENS)
    with capsys.disabled():
        print(f"\nKV cache in int8, {change}")
    assert change.divergence.mean() < 1e-3
    assert change.same_first > 0.97
    assert change.perplexity < 1.01 * change.perplexity_before
