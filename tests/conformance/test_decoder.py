"""The decoder against transformers: prefill in chunks, then greedy decode, on tiny random models.

Every model of every family runs on the kernels' NumPy references in CPython; one of each family
runs on WebGPU in the browser (some from Hugging Face's files: `test_checkpoints.py`). Greedy tokens
must be identical. Logits are compared with those of transformers in f32, and with those of
transformers whose keys and values are rounded to f16, which is how our KV cache holds them: what is
left then is the order of summation, and now and then a key that is rounded the other way. The
logits of 33 tokens come from a batch that is padded at the left.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from py_engine.gpu.types import AdapterInfo, Limits
from py_engine.kernels.forms import SplitKeys
from py_engine.kernels.tuning import tuning_for
from py_engine.models import loader
from tests.conformance.cases import FROM_CHECKPOINTS, GOLDEN, N_PROMPT
from tests.conformance.fixtures import Fixture, fixture_names, load_fixture
from tests.conformance.running import Decoded, decode_in_worker, decode_on_numpy
from tests.conftest import EngineWorker

TOLERANCE = 6e-3
"""Of the largest logit: our cache is f16 (2^-11 relative on every key and value), theirs f32."""

F16_CACHE_TOLERANCE = 1.2e-3
"""Twice what one machine shows: others sum in another order, and so round other keys up or down."""

CHUNKED = [
    *GOLDEN.values(),
    *("qwen2_window_q0f32", "qwen2_window_of_some_layers_q0f16", "phi3_longrope_crossed_q4f16"),
]


def errors(fixture: Fixture, decoded: Decoded) -> tuple[float, float]:
    """Return the largest errors of logits, relative to the largest logit of each step.

    The first is of transformers in f32, the second of it with a cache in f16.
    """
    found = dict(zip(fixture.prefix_lengths, decoded.prefix_logits, strict=True))
    found |= {N_PROMPT + step: logits for step, logits in enumerate(decoded.logits)}
    rows = [found[position + 1] for position in fixture.positions]
    return (
        relative_error(np.stack(rows), fixture.logits),
        relative_error(np.stack(rows), fixture.logits_of_f16_cache),
    )


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error of any row, relative to the row's largest element."""
    return float((np.abs(found - expected).max(-1) / np.abs(expected).max(-1)).max())


def assert_agrees(fixture: Fixture, decoded: Decoded) -> None:
    """Compare greedy tokens, and logits."""
    assert decoded.tokens == fixture.greedy_ids
    error, error_of_f16_cache = errors(fixture, decoded)
    assert error < TOLERANCE
    assert error_of_f16_cache < F16_CACHE_TOLERANCE


@pytest.mark.parametrize("name", fixture_names())
def test_decoder_on_numpy(name: str, tmp_path: Path) -> None:
    fixture = load_fixture(name)
    assert_agrees(fixture, decode_on_numpy(tmp_path, fixture))


@pytest.mark.sampled
@pytest.mark.parametrize("chunk", [1, 23, 70])
@pytest.mark.parametrize("name", CHUNKED)
def test_decoder_in_other_chunks(name: str, chunk: int, tmp_path: Path) -> None:
    """Chunks of one token, of an odd number, a last chunk of one, and a single one are the same."""
    fixture = load_fixture(name)
    assert_agrees(fixture, decode_on_numpy(tmp_path, fixture, {"prefill_chunk_size": chunk}))


@pytest.mark.parametrize("name", ["gqa_tied_q4f16", "gemma2_q4f16", "mistral_window_24_q0f32"])
def test_decoder_as_tuned(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of an adapter with forms of its own, in which short sequences are split too."""
    limits = Limits(
        max_compute_workgroup_storage_size=49152,
        max_compute_invocations_per_workgroup=1024,
        max_compute_workgroup_size_x=1024,
    )
    tuned = tuning_for(AdapterInfo("nvidia", subgroup_size_max=32), limits)
    tuned = replace(tuned, split_keys=SplitKeys(64, workgroups=14, least_keys=5, alone_keys=0))
    monkeypatch.setattr(loader, "tuning_for", lambda *arguments: tuned)
    fixture = load_fixture(name)
    assert_agrees(fixture, decode_on_numpy(tmp_path, fixture))


@pytest.mark.parametrize("family", sorted(set(GOLDEN) - set(FROM_CHECKPOINTS)))
def test_decoder_on_webgpu(family: str, tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_fixture(GOLDEN[family])
    assert_agrees(fixture, decode_in_worker(tmp_path, fixture, engine_worker))


def test_windows_in_chunks_of_one_on_webgpu(tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_fixture("mistral_window_24_q0f32")
    opts = {"prefill_chunk_size": 1}
    assert_agrees(fixture, decode_in_worker(tmp_path, fixture, engine_worker, opts))


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["gqa_tied_q4f16", "gemma2_q4f16", "phi_q4f16"])
def test_decoder_without_subgroups(name: str, tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_fixture(name)
    assert_agrees(fixture, decode_in_worker(tmp_path, fixture, engine_worker, lanes=False))
