"""The draw on the GPU against its NumPy reference and against known answers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from py_engine.kernels.reference_sampling import (
    SAMPLING,
    kept_by_top_k,
    kept_by_top_p,
)
from py_engine.kernels.reference_sampling import sample as reference_draw
from py_engine.kernels.sampling import GREEDY_TEMPERATURE, draw, draw_scratch
from py_engine.kernels.tuning import PLAIN, Tuning
from py_engine.kernels.wgsl import STATE_WORDS
from tests.kernels.cases import RunKernel, expected_and_found, poisoned
from tests.kernels.sampling_cases import FORBIDDEN, packed, state_words

VOCABULARIES = [1, 2, 31, 33, 255, 256, 257, 4096, 50257]

SLICED = Tuning(sample_threads=48, sample_slices=3)
ONE_SUBGROUP = Tuning(4, sample_threads=4)
TUNINGS = [
    *(Tuning(sample_threads=n) for n in (256, 48)),
    SLICED,
    Tuning(sample_slices=64),
    ONE_SUBGROUP,
]


def inputs_for(logits: np.ndarray, step: int = 0, **sampling: Any) -> dict[str, np.ndarray]:
    return {
        "logits": logits.astype(np.float32),
        "sampling": packed(**sampling),
        "counts": np.arange(len(logits), dtype=np.uint32),
        "state": state_words(step, token=99),
    }


def drawn_state(
    run_kernel: RunKernel,
    inputs: dict[str, np.ndarray],
    tuning: Tuning = PLAIN,
    without: Collection[str] = (),
) -> tuple[list[int], list[int]]:
    """Return `state` as expected and as found after the kernels of a draw, but for some.

    Each is compared with its reference.
    """
    vocabulary = len(inputs["logits"])
    scratch = draw_scratch(vocabulary, tuning)
    held = {**{name: poisoned(size // 4) for name, size in scratch.items()}, **inputs}
    expected = {name: data.copy() for name, data in inputs.items()}
    expected["probabilities"] = np.zeros(vocabulary, np.float32)
    constants = {"VOCABULARY": vocabulary, **STATE_WORDS}
    expected["sampling"] = expected["sampling"].view(SAMPLING)
    reference_draw(constants, 1, expected)
    for spec in draw(vocabulary, tuning):
        if spec.name in without:
            continue
        own = {binding.name: held[binding.name] for binding in spec.bindings}
        for name, (wanted, found) in expected_and_found(run_kernel, spec, own).items():
            if wanted.dtype == np.float32:
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6, err_msg=name)
            else:
                np.testing.assert_array_equal(found, wanted, name)
            held[name] = found
    np.testing.assert_array_equal(held["counts"], expected["counts"])
    return expected["state"].tolist(), held["state"].tolist()


def drawn_token(
    run_kernel: RunKernel,
    logits: np.ndarray,
    step: int = 0,
    tuning: Tuning = PLAIN,
    **sampling: Any,
) -> int:
    return drawn_state(run_kernel, inputs_for(logits, step, **sampling), tuning)[1][2]


@pytest.mark.parametrize("tuning", TUNINGS, ids=str)
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_greedy_takes_the_largest_and_advances_the_state(
    run_kernel: RunKernel, vocabulary: int, tuning: Tuning
) -> None:
    logits = np.random.default_rng(vocabulary).normal(size=vocabulary)
    inputs = inputs_for(logits, 7, temperature=0.0, seed=5)
    expected, found = drawn_state(run_kernel, inputs, tuning)
    assert found == expected == [20, 1, int(np.argmax(logits)), 8]


@pytest.mark.parametrize("tuning", TUNINGS, ids=str)
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_filter_at_once_equals_the_reference(
    run_kernel: RunKernel, vocabulary: int, tuning: Tuning
) -> None:
    logits = np.random.default_rng(vocabulary).normal(0, 2, vocabulary)
    for step in range(3):
        inputs = inputs_for(logits, step, temperature=0.8, top_k=40, top_p=0.9, min_p=0.02, seed=11)
        expected, found = drawn_state(run_kernel, inputs, tuning)
        assert found == expected


@pytest.mark.parametrize("temperature", [0.0, GREEDY_TEMPERATURE])
@pytest.mark.parametrize("tuning", TUNINGS, ids=str)
def test_greedy_needs_nothing_of_narrow(
    run_kernel: RunKernel, tuning: Tuning, temperature: float
) -> None:
    logits = np.random.default_rng(1).normal(size=50257)
    inputs = inputs_for(logits, 7, temperature=temperature, top_k=3)
    expected, found = drawn_state(run_kernel, inputs, tuning, without=("narrow",))
    assert found == expected == [20, 1, int(np.argmax(logits)), 8]


def test_greedy_takes_the_lowest_of_equal_logits(run_kernel: RunKernel) -> None:
    logits = np.full(1000, -3.0)
    logits[[300, 700, 999]] = 4.5
    assert drawn_token(run_kernel, logits, temperature=0.0) == 300


@pytest.mark.parametrize("tuning", TUNINGS, ids=str)
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 1e-5])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_draw_equals_the_reference(
    run_kernel: RunKernel, tuning: Tuning, temperature: float, top_p: float
) -> None:
    vocabulary = 1003
    logits = np.random.default_rng(3).normal(0, 3, vocabulary)
    for step in range(8):
        inputs = inputs_for(
            logits, step, temperature=temperature, top_p=top_p, seed=0x1234_5678_9ABC
        )
        expected, found = drawn_state(run_kernel, inputs, tuning)
        assert found == expected


@pytest.mark.parametrize(
    "sampling", [{"top_p": 1e-5}, {"top_p": 0.0}, {"top_k": 1}, {"min_p": 1.0}], ids=str
)
def test_the_tightest_filter_takes_the_likeliest(
    run_kernel: RunKernel, sampling: dict[str, float]
) -> None:
    logits = np.random.default_rng(8).normal(size=500)
    for step in range(4):
        found = drawn_token(run_kernel, logits, step, temperature=2.0, seed=1, **sampling)
        assert found == np.argmax(logits)


P = np.array([0.1, 0.4, 0.2, 0.3])


KEPT: list[tuple[dict[str, Any], set[int]]] = [
    ({"top_p": 0.6}, {1, 3}),
    ({"top_p": 0.85}, {1, 2, 3}),
    ({"top_k": 3}, {1, 2, 3}),
    ({"top_k": 4}, {0, 1, 2, 3}),
    # 0.4, 0.3, 0.2 make up 0.9: of what top_k leaves, the first two have 0.78
    ({"top_k": 3, "top_p": 0.75}, {1, 3}),
    ({"min_p": 0.4}, {1, 2, 3}),
    ({"min_p": -0.0}, {0, 1, 2, 3}),
    # min_p is of the likeliest token, whatever the others leave
    ({"min_p": 0.6, "top_k": 3, "top_p": 0.95}, {1, 3}),
]


@pytest.mark.parametrize("tuning", [PLAIN, SLICED, ONE_SUBGROUP], ids=["all", "sliced", "lanes"])
def test_only_what_the_filters_leave_is_drawn(run_kernel: RunKernel, tuning: Tuning) -> None:
    places = [5, 300, 301, 799]
    logits = np.full(800, FORBIDDEN)
    logits[places] = np.log(P)
    for sampling, kept in KEPT:
        found = {
            drawn_token(run_kernel, logits, tuning=tuning, seed=seed, **sampling)
            for seed in range(40)
        }
        assert found == {places[i] for i in kept}, sampling


@pytest.mark.parametrize(
    ("sampling", "most"),
    [({"top_p": 0.9}, 5000), ({"top_k": 20}, 200), ({"min_p": 0.1}, 20)],
    ids=str,
)
def test_few_tokens_are_looked_at_again(
    run_kernel: RunKernel, sampling: dict[str, Any], most: int
) -> None:
    vocabulary, tuning = 50257, Tuning(sample_slices=64)
    scratch = draw_scratch(vocabulary, tuning)
    held = {name: poisoned(size // 4) for name, size in scratch.items()}
    held |= inputs_for(np.random.default_rng(5).normal(0, 4, vocabulary), **sampling)
    for spec in draw(vocabulary, tuning)[:2]:
        own = {binding.name: held[binding.name] for binding in spec.bindings}
        results = expected_and_found(run_kernel, spec, own)
        held |= {name: found for name, (_, found) in results.items()}
    assert 0 < held["kept_tokens"].sum() < most


def test_ties_at_the_border_are_all_kept(run_kernel: RunKernel) -> None:
    logits = np.log([0.4, 0.2, 0.2, 0.1, 0.1])
    for sampling in ({"top_k": 2}, {"top_p": 0.5}):
        found = {drawn_token(run_kernel, logits, seed=seed, **sampling) for seed in range(30)}
        assert found == {0, 1, 2}


def test_the_references_filters() -> None:
    assert kept_by_top_p(P, 0.6).tolist() == [False, True, False, True]
    assert kept_by_top_k(P, 2).tolist() == [False, True, False, True]
    assert kept_by_top_k(P, 0).all()


def test_forbidden_tokens_are_never_drawn(run_kernel: RunKernel) -> None:
    logits = np.full(300, -3.4e38)
    logits[[7, 290]] = [0.0, -1.0]
    found = {
        drawn_token(run_kernel, logits, seed=seed, temperature=5.0, **sampling)
        for seed in range(8)
        for sampling in ({}, {"top_k": 100}, {"top_p": 0.999})
    }
    assert found == {7, 290}
