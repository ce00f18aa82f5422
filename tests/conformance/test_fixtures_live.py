"""The stored fixtures are what transformers computes today, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.models.registry import decoder_spec
from tests.conformance.cases import ROPE_CASES, case_named
from tests.conformance.encoder_fixtures import POOLINGS, encoder_names, load_encoder_fixture
from tests.conformance.fixtures import fixture_names, load_fixture, load_rope
from tests.conformance.test_decoder import F16_CACHE_TOLERANCE, relative_error
from tests.conformance.test_names import chat_config

pytest.importorskip("torch", reason="the live oracle needs torch")
pytest.importorskip("transformers", reason="the live oracle needs transformers")


@pytest.mark.parametrize("name", fixture_names())
def test_fixture_equals_transformers(name: str) -> None:
    from tests.conformance.reference import checkpoint_tensors, run_reference

    fixture = load_fixture(name)
    assert checkpoint_tensors(fixture.case) == fixture.tensors
    live = run_reference(fixture.case, fixture.tensors, fixture.seed)
    assert live is not None
    assert live.token_ids == fixture.token_ids
    assert live.positions == fixture.positions
    # All are f32, but the order of summation changes with the version and the processor, and can
    # change how a key is rounded to f16.
    np.testing.assert_allclose(live.logits, fixture.logits, rtol=0, atol=2e-4)
    np.testing.assert_allclose(live.margins, fixture.margins, rtol=0, atol=2e-4)
    halved = relative_error(live.logits_of_f16_cache, fixture.logits_of_f16_cache)
    assert halved < F16_CACHE_TOLERANCE


@pytest.mark.parametrize("name", fixture_names())
def test_every_parameter_matters(name: str) -> None:
    """A tensor that were read in another order would show."""
    from tests.conformance.reference import changes_without

    fixture = load_fixture(name)
    changes = changes_without(fixture.case, fixture.tensors, fixture.seed)
    assert {name: change for name, change in changes.items() if change < 0.01} == {}


@pytest.mark.parametrize("name", fixture_names())
def test_padding_changes_nothing(name: str) -> None:
    from tests.conformance.reference import N_PADDED, load_model, unpadded_logits

    fixture = load_fixture(name)
    model = load_model(fixture.case, fixture.tensors, fixture.seed)
    alone = unpadded_logits(model, fixture.prompt_ids[:N_PADDED])
    np.testing.assert_allclose(fixture.logits_at(N_PADDED - 1), alone, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", fixture_names())
def test_configurations_as_transformers_saves_them_say_the_same(name: str) -> None:
    """What it writes today, with every default, and the published forms in `cases.py`."""
    from tests.conformance.reference import saved_config

    case = case_named(name)
    saved = chat_config(case.family, saved_config(case))
    assert decoder_spec(saved) == decoder_spec(chat_config(case.family, case.config))


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
