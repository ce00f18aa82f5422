"""The draw on the GPU against its NumPy reference and against exact probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.reference import kept_by_top_p
from py_engine.kernels.sampling import sample
from tests.kernels.cases import RunKernel, expected_and_found


def inputs_for(
    logits: np.ndarray, temperature: float, top_p: float, seed: int, step: int
) -> dict[str, np.ndarray]:
    sampling = np.zeros(4, np.uint32)
    sampling[:2] = np.array([temperature, top_p], np.float32).view(np.uint32)
    sampling[2:] = [seed & 0xFFFFFFFF, seed >> 32]
    return {
        "logits": logits.astype(np.float32),
        "sampling": sampling,
        "probabilities": np.zeros(len(logits), np.float32),
        "state": np.array([17, 3, 99, step], np.uint32),
    }


def draw(
    run_kernel: RunKernel, spec: KernelSpec, inputs: dict[str, np.ndarray]
) -> tuple[list[int], list[int]]:
    result = expected_and_found(run_kernel, spec, inputs)["state"]
    return [int(x) for x in result[0]], [int(x) for x in result[1]]


@pytest.mark.parametrize("vocabulary", [2, 255, 256, 257, 4096, 32003])
def test_greedy_takes_the_largest_and_advances_the_state(
    run_kernel: RunKernel, vocabulary: int
) -> None:
    logits = np.random.default_rng(vocabulary).normal(size=vocabulary)
    expected, found = draw(run_kernel, sample("s", vocabulary), inputs_for(logits, 0, 1, 5, 7))
    assert found == expected == [20, 1, int(np.argmax(logits)), 8]


def test_greedy_takes_the_lowest_of_equal_logits(run_kernel: RunKernel) -> None:
    logits = np.full(1000, -3.0)
    logits[[300, 700, 999]] = 4.5
    _, found = draw(run_kernel, sample("s", 1000), inputs_for(logits, 0, 1, 0, 0))
    assert found[2] == 300


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 1e-5])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_draw_equals_the_reference(run_kernel: RunKernel, temperature: float, top_p: float) -> None:
    vocabulary = 1003
    logits = np.random.default_rng(3).normal(0, 3, vocabulary)
    spec = sample("s", vocabulary)
    for step in range(8):
        inputs = inputs_for(logits, temperature, top_p, 0x1234_5678_9ABC, step)
        expected, found = draw(run_kernel, spec, inputs)
        assert found == expected


def test_top_p_keeps_only_the_nucleus(run_kernel: RunKernel) -> None:
    """Probabilities 0.4, 0.3, 0.2, 0.1 with top_p 0.6: only the first two are ever drawn."""
    p = np.array([0.1, 0.4, 0.2, 0.3])
    assert kept_by_top_p(p, 0.6).tolist() == [False, True, False, True]
    spec = sample("s", 4)
    found = {
        draw(run_kernel, spec, inputs_for(np.log(p), 1.0, 0.6, seed, 0))[1][2] for seed in range(40)
    }
    assert found == {1, 3}
