"""Log-probabilities on the GPU against known answers and the NumPy reference."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from py_engine.kernels.sampling import logprobs
from py_engine.kernels.tuning import PLAIN, Tuning
from tests.kernels.cases import POISON, RunKernel, expected_and_found, poisoned
from tests.kernels.sampling_cases import FORBIDDEN, packed, state_words

MAX_TOP = 20


def report(
    run_kernel: RunKernel, logits: Any, token: int, tuning: Tuning = PLAIN, **sampling: Any
) -> tuple[float, list[tuple[int, float]]]:
    """Return the drawn token's log-probability and the likeliest tokens, compared and found."""
    logits = np.array(logits, np.float32)
    inputs = {
        "logits": logits,
        "sampling": packed(**sampling),
        "state": state_words(token=token),
        "drawn": poisoned(2 + 2 * MAX_TOP),
    }
    spec = logprobs("l", len(logits), MAX_TOP, tuning)
    expected, found = expected_and_found(run_kernel, spec, inputs)["drawn"]
    n_written = int((found != POISON).sum())
    np.testing.assert_array_equal(found[0:n_written:2], expected[0:n_written:2])
    values = found[1:n_written:2].view(np.float32)
    np.testing.assert_allclose(
        values, expected[1:n_written:2].view(np.float32), atol=5e-6, rtol=1e-6
    )
    assert found[0] == token
    top = list(zip(found[2:n_written:2].tolist(), values[1:].tolist(), strict=True))
    return float(values[0]), top


def test_a_distribution_by_hand(run_kernel: RunKernel) -> None:
    p = [0.1, 0.4, 0.2, 0.3]
    drawn, top = report(run_kernel, np.log(p) + 7, token=2, top_logprobs=3)
    assert drawn == pytest.approx(np.log(0.2), abs=1e-6)
    assert [token for token, _ in top] == [1, 3, 2]
    assert [value for _, value in top] == pytest.approx(np.log([0.4, 0.3, 0.2]), abs=1e-6)


def test_c2_likeliest_tokens_of_webllms_own_test(run_kernel: RunKernel) -> None:
    p = [0.05, 0.15, 0.3, 0.16, 0.04, 0.2, 0.1]
    _, top = report(run_kernel, np.log(p), token=0, top_logprobs=3)
    assert [token for token, _ in top] == [2, 5, 3]
    assert [np.exp(value) for _, value in top] == pytest.approx([0.3, 0.2, 0.16], abs=1e-6)
    assert report(run_kernel, np.log(p), token=0, top_logprobs=0)[1] == []


@pytest.mark.parametrize("vocabulary", [1, 31, 33, 257, 50257])
@pytest.mark.parametrize("n_top", [0, 1, 20])
def test_logprobs_equal_the_reference(run_kernel: RunKernel, vocabulary: int, n_top: int) -> None:
    logits = np.random.default_rng(vocabulary).normal(0, 4, vocabulary)
    _, top = report(run_kernel, logits, vocabulary // 2, temperature=0.7, top_logprobs=n_top)
    assert len(top) == min(n_top, vocabulary)


@pytest.mark.parametrize("tuning", [Tuning(sample_threads=64), Tuning(4, sample_threads=4)])
def test_few_threads_give_the_same(run_kernel: RunKernel, tuning: Tuning) -> None:
    logits = np.random.default_rng(3).normal(0, 4, 4096)
    few = report(run_kernel, logits, 7, tuning, top_logprobs=20)
    many = report(run_kernel, logits, 7, top_logprobs=20)
    assert [token for token, _ in few[1]] == [token for token, _ in many[1]]


def test_they_do_not_depend_on_the_filters(run_kernel: RunKernel) -> None:
    logits = np.random.default_rng(1).normal(size=100)
    plain = report(run_kernel, logits, 50, temperature=1.5, top_logprobs=5)
    filtered = report(
        run_kernel, logits, 50, temperature=1.5, top_logprobs=5, top_p=0.1, top_k=1, min_p=0.9
    )
    assert plain == filtered


def test_temperature_counts_and_zero_counts_as_one(run_kernel: RunKernel) -> None:
    logits = [0.0, 1.0, 3.0]
    for temperature, divisor in ((0.0, 1.0), (1.0, 1.0), (2.0, 2.0), (0.5, 0.5)):
        scaled = np.array(logits) / divisor
        wanted = scaled - np.log(np.exp(scaled).sum())
        drawn, top = report(run_kernel, logits, 0, temperature=temperature, top_logprobs=3)
        assert drawn == pytest.approx(wanted[0], abs=1e-5)
        assert [value for _, value in top] == pytest.approx(wanted[::-1], abs=1e-5)


def test_equal_tokens_come_lowest_first(run_kernel: RunKernel) -> None:
    _, top = report(run_kernel, np.zeros(700), 3, top_logprobs=20)
    assert [token for token, _ in top] == list(range(20))


def test_the_likeliest_may_be_in_one_threads_share(run_kernel: RunKernel) -> None:
    logits = np.zeros(256 * 30)
    logits[5::256] = np.arange(30) + 1
    _, top = report(run_kernel, logits, 5, top_logprobs=20)
    assert [token for token, _ in top] == [5 + 256 * i for i in range(29, 9, -1)]


@pytest.mark.parametrize("temperature", [0.0, 0.01, 1.0, 3.0])
def test_what_is_forbidden_is_a_finite_number(run_kernel: RunKernel, temperature: float) -> None:
    logits = np.full(40, FORBIDDEN)
    logits[[3, 9]] = [1.0, 2.0]
    drawn, top = report(run_kernel, logits, 0, temperature=temperature, top_logprobs=4)
    assert drawn == -9999.0
    assert [token for token, _ in top] == [9, 3, 0, 1]
    assert [value for _, value in top[2:]] == [-9999.0, -9999.0]
    json.dumps([drawn, top], allow_nan=False)
