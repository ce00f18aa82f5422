"""Mask, bias and penalties on the GPU: WebLLM's formulas on known vectors, and the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from py_engine.kernels.sampling import adjust, mask
from tests.kernels.cases import RunKernel, assert_close, expected_and_found
from tests.kernels.sampling_cases import FORBIDDEN, mask_words, packed

VOCABULARIES = [1, 31, 33, 257, 50257]


def adjusted(
    run_kernel: RunKernel, logits: Any, bias: Any, counts: Any, **sampling: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return adjusted logits, expected and found."""
    inputs = {
        "bias": np.array(bias, np.float32),
        "counts": np.array(counts, np.uint32),
        "sampling": packed(**sampling),
        "logits": np.array(logits, np.float32),
    }
    spec = adjust("a", len(inputs["logits"]))
    return expected_and_found(run_kernel, spec, inputs)["logits"]


def masked(run_kernel: RunKernel, logits: np.ndarray, words: np.ndarray) -> np.ndarray:
    inputs = {"mask": words, "logits": logits.astype(np.float32)}
    expected, found = expected_and_found(run_kernel, mask("m", len(logits)), inputs)["logits"]
    np.testing.assert_array_equal(found, expected)
    return found


def test_penalties_and_bias_on_a_vector_by_hand(run_kernel: RunKernel) -> None:
    logits, bias, counts = [2.0, 2.0, -1.0, 0.5, 4.0], [0, 0, 0, 1.5, -100], [0, 3, 1, 1, 0]
    _, found = adjusted(
        run_kernel,
        logits,
        bias,
        counts,
        presence_penalty=0.25,
        frequency_penalty=0.5,
        repetition_penalty=2.0,
    )
    # 2 - 0.25 - 3 * 0.5 = 0.25, halved; -1 - 0.75 = -1.75, doubled; 0.5 + 1.5 - 0.75, halved
    assert found.tolist() == [2.0, 0.125, -3.5, 0.625, -96.0]


def test_negative_penalties_favour_what_was_drawn(run_kernel: RunKernel) -> None:
    _, found = adjusted(
        run_kernel, [1.0, 1.0], [0, 0], [2, 0], presence_penalty=-1.0, frequency_penalty=-0.5
    )
    assert found.tolist() == [3.0, 1.0]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_adjust_equals_the_reference(run_kernel: RunKernel, vocabulary: int) -> None:
    rng = np.random.default_rng(vocabulary)
    pair = adjusted(
        run_kernel,
        rng.normal(0, 5, vocabulary),
        rng.normal(0, 20, vocabulary) * (rng.random(vocabulary) < 0.1),
        rng.integers(0, 4, vocabulary),
        presence_penalty=0.7,
        frequency_penalty=-0.3,
        repetition_penalty=1.3,
    )
    assert_close(pair, 1e-6)


def test_a_forbidden_token_stays_finite_and_forbidden(run_kernel: RunKernel) -> None:
    for penalty in (1.3, 1e30, 0.5, 1e-45):
        expected, found = adjusted(
            run_kernel,
            [FORBIDDEN, FORBIDDEN, np.finfo(np.float32).min, 5.0],
            [100, 0, 0, 0],
            [0, 1, 1, 1],
            presence_penalty=2.0,
            repetition_penalty=penalty,
        )
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected, rtol=1e-3)
        assert found[:3].max() <= FORBIDDEN * min(penalty, 1) * 0.999


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_mask_forbids_all_but_its_tokens(run_kernel: RunKernel, vocabulary: int) -> None:
    rng = np.random.default_rng(vocabulary)
    logits = rng.normal(size=vocabulary).astype(np.float32)
    allowed = rng.random(vocabulary) < 0.3
    found = masked(run_kernel, logits, mask_words(allowed))
    np.testing.assert_array_equal(found, np.where(allowed, logits, FORBIDDEN))


def test_bits_past_the_vocabulary_mean_nothing(run_kernel: RunKernel) -> None:
    logits = np.zeros(33)
    found = masked(run_kernel, logits, np.array([1 << 31, 0xFFFFFFFE], np.uint32))
    assert np.flatnonzero(found == 0).tolist() == [31]
    assert (masked(run_kernel, logits, np.full(2, 0xFFFFFFFF, np.uint32)) == 0).all()


def test_a_bias_does_not_bring_a_forbidden_token_back(run_kernel: RunKernel) -> None:
    """The mask comes first, as in WebLLM; a bias is at most 100."""
    logits = masked(run_kernel, np.array([1.0, 2.0, 3.0]), mask_words(np.array([1, 1, 0], bool)))
    _, found = adjusted(run_kernel, logits, [50, 0, 100], [0, 0, 0])
    assert found.tolist() == [51.0, 2.0, float(FORBIDDEN)]
