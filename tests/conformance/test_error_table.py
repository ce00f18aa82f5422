"""The table of `docs/models.md` has every family, and figures that can be true."""

from __future__ import annotations

from collections import Counter

from py_engine.models.registry import ARCHITECTURES, ENCODERS
from tests.conformance.cases import CASES
from tests.conformance.error_table import PAGE, stated_figures, with_figures
from tests.conformance.test_decoder import F16_CACHE_TOLERANCE, TOLERANCE

TEXT = PAGE.read_text(encoding="utf-8")


def test_every_family_has_a_row() -> None:
    first_columns = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    named = {name for column in first_columns for name in column.split("`")[1::2]}
    assert named - {"model_type"} == {*ARCHITECTURES, *ENCODERS}


def test_figures_are_of_the_models_that_are_compared() -> None:
    stated = stated_figures(TEXT)
    assert {family: number for family, (number, _, _) in stated.items()} == Counter(
        case.family for case in CASES
    )
    for _, error, same_cache in stated.values():
        assert 0 < same_cache < F16_CACHE_TOLERANCE
        assert same_cache < error < TOLERANCE


def test_figures_are_put_into_their_rows() -> None:
    text = with_figures(TEXT, lambda family: (len(family), 0.00123, 4e-5))
    assert stated_figures(text)["gpt_neox"] == (8, 1.2e-3, 4e-5)
    assert with_figures(text, stated_figures(TEXT).__getitem__) == TEXT
