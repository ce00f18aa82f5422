"""Activations in 8 bits: how little they change."""

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
from tests.conformance.running import Decoded, decode_in_worker, decode_on_numpy, load_on_numpy
from tests.conformance.test_batcher import check as check_batches
from tests.conformance.test_batcher import drive as drive_batches
from tests.conftest import EngineWorker
from tests.support.event_loop import in_event_loop
from tests.support.numpy_device import NumpyDevice

INT8 = {"activation_dtype": "int8"}
ON_WEBGPU = ["gqa_tied_q4f16", "gpt2_q4f16"]
N_TOKENS = 80


def relative_error(found: Decoded, expected: Decoded) -> float:
    """Return the largest error of logits after the same tokens, by their spread."""
    pairs = zip(found.tokens, expected.tokens, strict=True)
    n_same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(found.tokens) - 1)
    rows = zip(found.logits[: n_same + 1], expected.logits[: n_same + 1], strict=True)
    return max(float(np.abs(mine - theirs).max() / theirs.std()) for mine, theirs in rows)


@pytest.mark.sampled
@pytest.mark.parametrize("name", fixture_names())
def test_every_family_has_nearly_the_same_logits(name: str, tmp_path: Path) -> None:
    fixture = load_fixture(name)
    floats = decode_on_numpy(tmp_path / "floats", fixture)
    codes = decode_on_numpy(tmp_path / "codes", fixture, INT8)
    error = relative_error(codes, floats)
    assert (error > 0) == ("_q4f" in name)
    assert error < 0.6
    assert len(codes.tokens) == len(floats.tokens)


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("name", ON_WEBGPU)
def test_webgpu_computes_what_numpy_does(
    name: str, lanes: bool, tmp_path: Path, engine_worker: EngineWorker
) -> None:
    fixture = load_fixture(name)
    with ThreadPoolExecutor() as pool:  # this thread has the browser's event loop
        expected = pool.submit(decode_on_numpy, tmp_path / "numpy", fixture, INT8).result()
    found = decode_in_worker(tmp_path / "worker", fixture, engine_worker, INT8, lanes=lanes)
    # A code that f32 rounds to its neighbour moves logits more than f32 itself does.
    assert relative_error(found, expected) < 0.1


@in_event_loop
async def test_sequences_share_steps(tmp_path: Path) -> None:
    fixture, device = load_fixture("gqa_tied_q4f16"), NumpyDevice()
    model = await load_on_numpy(tmp_path, fixture, device, INT8)
    found = await drive_batches(model, fixture.prompt_ids, len(fixture.greedy_ids), [])
    model.destroy()
    assert device.live_buffers == []
    check_batches(found, "gqa_tied_q4f16")


@pytest.mark.parametrize("value", ["bfloat16", 8, ""])
def test_other_values_are_refused(value: Any) -> None:
    data = {"model_type": "llama", "quantization": "q4f16_1", "model_config": {}, "vocab_size": 9}
    with pytest.raises(ConfigurationFieldError, match="activation_dtype"):
        ChatConfig.from_json(
            data | {"context_window_size": 64}, chat_opts={"activation_dtype": value}
        )


def test_quality_with_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    change = change_by(INT8, N_TOKENS)
    with capsys.disabled():
        print(f"\nActivations in int8, {change}")
    assert change.divergence.mean() < 2e-3
    assert change.same_first > 0.95
    assert change.perplexity < 1.01 * change.perplexity_before
    assert np.isfinite(change.perplexity)
