"""The stored fixtures are what transformers computes today, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.encoder_fixtures import POOLINGS, encoder_names, load_encoder_fixture
from tests.conformance.fixtures import fixture_names, load_fixture, load_rope
from tests.conformance.recipe import ROPE_CASES

pytest.importorskip("torch", reason="the live oracle needs torch")
pytest.importorskip("transformers", reason="the live oracle needs transformers")


@pytest.mark.parametrize("name", fixture_names())
def test_fixture_equals_transformers(name: str) -> None:
    from tests.conformance.reference import run_reference

    fixture = load_fixture(name)
    live = run_reference(fixture.case, fixture.seed)
    assert live.token_ids == fixture.token_ids
    assert live.positions == fixture.positions
    # Both are f32, but the order of summation changes with the version and the processor.
    np.testing.assert_allclose(live.logits, fixture.logits, rtol=0, atol=2e-4)


def test_rope_fixture_equals_transformers() -> None:
    from tests.conformance.reference import run_rope

    live = [run_rope(head_dim, rope) for head_dim, rope in ROPE_CASES]
    for ours, theirs in zip(load_rope(), live, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", encoder_names())
def test_encoder_fixture_equals_transformers(name: str) -> None:
    from tests.conformance.encoder_reference import run_encoder

    fixture = load_encoder_fixture(name)
    live = run_encoder(fixture.case)
    assert live.sequences == fixture.sequences
    np.testing.assert_allclose(live.hidden_states, fixture.hidden_states, rtol=0, atol=2e-5)
    for pooling in POOLINGS:
        for normalize in (False, True):
            expected = fixture.vectors(pooling, normalize)
            np.testing.assert_allclose(live.vectors(pooling, normalize), expected, atol=2e-5)
