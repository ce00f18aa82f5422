"""Draws of a batch in one set of dispatches: against NumPy, and bit for bit against one's alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from py_engine.kernels.batch import MAX_BATCH, batch_stride
from py_engine.kernels.sampling import SAMPLING_STRIDE, draw, draw_scratch
from py_engine.kernels.tuning import Tuning
from py_engine.models.batch import STATE_STRIDE
from tests.kernels.cases import Array, RunKernel, expected_and_found, poisoned
from tests.kernels.sampling_cases import packed, state_words

ROWS: list[dict[str, Any]] = [
    {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "seed": 11},
    {"temperature": 0.0, "seed": 5},
    {"temperature": 1.7, "top_p": 0.6, "seed": 1 << 40},
]
"""How the rows of three sequences draw, in a batch of four."""

STATES, SAMPLINGS = [5, 2, 0], [1, 6, 3]

FORMS = [
    ("as a whole", 33, Tuning()),
    ("as a whole", 1003, Tuning(sample_threads=48)),
    ("as a whole", 1003, Tuning(4, sample_threads=4)),
    ("in slices", 1003, Tuning(sample_threads=48, sample_slices=3)),
    pytest.param("as a whole", 50257, Tuning(), marks=pytest.mark.sampled),
    pytest.param("in slices", 50257, Tuning(sample_slices=64), marks=pytest.mark.sampled),
]


def run_draw(
    run: RunKernel, vocabulary: int, tuning: Tuning, inputs: Mapping[str, Array], batch: int
) -> dict[str, Array]:
    """Return all buffers as words after the kernels of a draw, alone or of all the rows."""
    scratch = draw_scratch(vocabulary, tuning)
    held = {**{name: poisoned(batch * size // 4) for name, size in scratch.items()}, **inputs}
    for spec in draw(vocabulary, tuning, batch):
        own = {binding.name: held[binding.name] for binding in spec.bindings}
        n_tokens = len(ROWS) if batch > 1 else 1
        for name, (wanted, found) in expected_and_found(run, spec, own, n_tokens).items():
            if wanted.dtype == np.float32:
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6, err_msg=name)
            else:
                np.testing.assert_array_equal(found, wanted, name)
            held[name] = found.view(np.uint32)
    return held


def batch_inputs(logits: Array, batch: int) -> dict[str, Array]:
    """Return what a batch has in place of its rows' own buffers."""
    rows = np.zeros((MAX_BATCH, 4), np.uint32)
    spread = poisoned(batch * batch_stride(logits.shape[1])).reshape(batch, -1)
    states = poisoned(MAX_BATCH * STATE_STRIDE).reshape(MAX_BATCH, -1)
    samplings = np.zeros((MAX_BATCH, SAMPLING_STRIDE), np.uint8)
    for number, own in enumerate(ROWS):
        state, sampling = STATES[number], SAMPLINGS[number]
        rows[number] = state * STATE_STRIDE, 77, sampling, 99
        spread[number, : logits.shape[1]] = logits[number].view(np.uint32)
        states[state, :4] = state_words(step=number, token=99)
        fields = packed(**own)
        samplings[sampling, : fields.size] = fields
    found = {"logits": spread, "state": states, "sampling": samplings, "rows": rows}
    return {name: array.reshape(-1) for name, array in found.items()}


@pytest.mark.parametrize(("how", "vocabulary", "tuning"), FORMS)
def test_a_row_draws_what_it_would_alone(
    run_kernel: RunKernel, how: str, vocabulary: int, tuning: Tuning
) -> None:
    assert (len(draw(vocabulary, tuning)) > 1) is (how == "in slices")
    rng, batch = np.random.default_rng(vocabulary), 4
    logits = rng.normal(0, 3, (len(ROWS), vocabulary)).astype(np.float32)
    together = run_draw(run_kernel, vocabulary, tuning, batch_inputs(logits, batch), batch)
    for number, own in enumerate(ROWS):
        inputs = {
            "logits": logits[number],
            "sampling": packed(**own),
            "counts": np.zeros(vocabulary, np.uint32),
            "state": state_words(step=number, token=99),
        }
        alone = run_draw(run_kernel, vocabulary, tuning, inputs, 1)
        state = together["state"][STATES[number] * STATE_STRIDE :]
        assert state[:4].tolist() == alone["state"].tolist()
        for name in draw_scratch(vocabulary, tuning):
            row = together[name].reshape(batch, -1)[number]
            np.testing.assert_array_equal(row, alone[name], name)
