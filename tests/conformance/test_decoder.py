"""The decoder against transformers: prefill in chunks, then greedy decode, on tiny random models.

The same run on the kernels' NumPy references in CPython, and on WebGPU in the browser. Greedy
tokens must be identical. Logits: 5e-3 of the largest one, which the KV cache in f16 accounts for
(2^-11 relative on every key and value); transformers keeps it in f32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conformance.fixtures import Fixture, fixture_names, load_fixture
from tests.conformance.running import decode_in_worker, decode_on_numpy
from tests.conftest import EngineWorker

TOLERANCE = 5e-3


def assert_agrees(fixture: Fixture, token_ids: list[int], logits: list[np.ndarray]) -> None:
    """Compare greedy tokens, and the logits that each was drawn from."""
    assert token_ids == fixture.greedy_ids
    for step, found in enumerate(logits):
        expected = fixture.logits_at(len(fixture.prompt_ids) - 1 + step)
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE, f"step {step}: relative error {error:.1e}"


@pytest.mark.parametrize("name", fixture_names())
def test_decoder_on_numpy(name: str, tmp_path: Path) -> None:
    fixture = load_fixture(name)
    assert_agrees(fixture, *decode_on_numpy(tmp_path, fixture))


@pytest.mark.parametrize("name", fixture_names())
def test_decoder_on_webgpu(name: str, tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_fixture(name)
    assert_agrees(fixture, *decode_in_worker(tmp_path, fixture, engine_worker))


@pytest.mark.parametrize("chunk", [1, 69, 70])
@pytest.mark.parametrize(
    "name",
    ["gqa_tied_q4f16", "mistral_window_24_q0f32", "qwen2_window_q0f32", "qwen3_head_80_q0f16"],
)
def test_decoder_in_other_chunks(
    name: str, chunk: int, tmp_path: Path, engine_worker: EngineWorker
) -> None:
    """Chunks of one token, a last chunk of one token, and a single chunk give the same."""
    fixture = load_fixture(name)
    opts = {"prefill_chunk_size": chunk}
    assert_agrees(fixture, *decode_in_worker(tmp_path, fixture, engine_worker, opts))


@pytest.mark.parametrize("name", ["gqa_tied_q4f16", "qwen2_tied_q4f16", "qwen3_tied_q4f16"])
def test_decoder_without_subgroups(name: str, tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_fixture(name)
    assert_agrees(fixture, *decode_in_worker(tmp_path, fixture, engine_worker, lanes=False))
