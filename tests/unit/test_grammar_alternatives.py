"""A grammar that is one of two says of each what it says alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from py_engine.errors import InvalidResponseFormatStructuralTagError
from py_engine.grammar import GrammarSpec
from py_engine.grammar.alternatives import either
from py_engine.grammar.json_schema import schema_ebnf
from py_engine.grammar.structural_tag import lowered_tag

SCHEMA = json.dumps({"type": "object", "properties": {"a": {"type": "object"}}})


def tag(*, strict: bool) -> GrammarSpec:
    form = {"type": "json_schema", "json_schema": json.loads(SCHEMA)}
    return GrammarSpec("structural_tag", json.dumps({"format": form}), strict=strict)


def elements(first: GrammarSpec, second: GrammarSpec) -> list[Any]:
    spec = either(first, second)
    found: list[Any] = json.loads(lowered_tag(spec.text, strict=spec.strict))["format"]["elements"]
    return found


@pytest.mark.parametrize("strict", [True, False])
def test_each_schema_keeps_its_own_strictness(strict: bool) -> None:
    first, second = elements(
        tag(strict=strict), GrammarSpec("json_schema", SCHEMA, strict=not strict)
    )
    assert schema_ebnf(SCHEMA, strict=True) != schema_ebnf(SCHEMA, strict=False)
    assert first["grammar"] == schema_ebnf(SCHEMA, strict=strict)
    assert second["grammar"] == schema_ebnf(SCHEMA, strict=not strict)


def test_json_is_any_object_or_array() -> None:
    first, _ = elements(GrammarSpec("json"), tag(strict=True))
    wanted = schema_ebnf(json.dumps({"type": ["object", "array"]}), strict=False)
    assert first["grammar"] == wanted


def test_grammars_and_patterns_stay_as_they_are() -> None:
    grammar = 'root ::= "a"'
    first, second = elements(GrammarSpec("ebnf", grammar), GrammarSpec("regex", "a"))
    assert first == {"type": "grammar", "grammar": grammar}
    assert second["type"] == "grammar" and "a" in second["grammar"]


@pytest.mark.parametrize("wrong", ["{}", '{"format": {"type": "text"}}'])
def test_a_wrong_tag_is_refused_when_compiled(wrong: str) -> None:
    spec = either(GrammarSpec("regex", "a"), GrammarSpec("structural_tag", wrong))
    with pytest.raises(InvalidResponseFormatStructuralTagError, match=r"elements\[1\].format"):
        lowered_tag(spec.text, strict=spec.strict)
