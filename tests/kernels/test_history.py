"""A sequence's tokens written down and brought back, against NumPy: exact."""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.kernels.history import recall, remember
from tests.kernels.cases import RunKernel, expected_and_found, poisoned

CONTEXT = 150


@pytest.mark.parametrize("position", [0, 77, CONTEXT - 1])
def test_the_drawn_token_is_remembered_at_its_position(
    run_kernel: RunKernel, position: int
) -> None:
    state = np.array([position, 1, 4711, 3], np.uint32)
    inputs = {"state": state, "history": poisoned(CONTEXT)}
    expected, found = expected_and_found(run_kernel, remember("remember", CONTEXT), inputs)[
        "history"
    ]
    np.testing.assert_array_equal(expected, found)
    assert found[position] == 4711


@pytest.mark.parametrize(("position", "n_tokens"), [(0, 70), (13, 1), (90, 60), (5, 64), (5, 65)])
def test_a_chunk_is_recalled(run_kernel: RunKernel, position: int, n_tokens: int) -> None:
    inputs = {
        "history": np.arange(1000, 1000 + CONTEXT, dtype=np.uint32),
        "state": np.array([position, n_tokens, 0, 0], np.uint32),
        "tokens": poisoned(70),
    }
    expected, found = expected_and_found(run_kernel, recall("recall", CONTEXT, 70), inputs)[
        "tokens"
    ]
    np.testing.assert_array_equal(expected, found)
    assert found[0] == 1000 + position
