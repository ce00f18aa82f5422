"""JSON Schemas of requests: checked before any work, compiled as a grammar of their valid texts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from py_engine.errors import InvalidResponseFormatError
from py_engine.grammar.schema_check import schema_text
from py_engine.grammar.schema_grammar import schema_grammar
from py_engine.json_values import is_too_deep


@dataclass(frozen=True)
class CheckedSchema:
    """A schema as JSON text; `needs_validation`: a complete reply must be checked against it."""

    text: str
    needs_validation: bool


def check_json_schema(schema: Any, where: str, *, strict: bool) -> CheckedSchema:
    """Check a schema; `where` names it in errors.

    What a grammar cannot follow is refused when `strict`; otherwise replies need validation.
    Errors: InvalidResponseFormatError.
    """
    text = schema_text(schema, where)
    ignored = schema_grammar(schema, where, closed=strict).ignored
    if strict and ignored:
        place, why = ignored[0]
        raise InvalidResponseFormatError(
            f"{place} cannot be enforced: {why}. Leave it out, or set strict to false, so that it "
            "is checked when the reply is complete."
        )
    return CheckedSchema(text, bool(ignored))


def schema_ebnf(text: str, *, strict: bool, where: str = "JSON Schema") -> str:
    """Return the EBNF of a schema's texts, with the rule "root".

    `strict` forbids properties that are not named. Errors: InvalidResponseFormatError.
    """
    if is_too_deep(text):
        raise InvalidResponseFormatError(f"{where} lies too deep in itself. Make it flatter.")
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise InvalidResponseFormatError(f"{where}: not valid JSON: {error}.") from error
    schema_text(schema, where)
    return schema_grammar(schema, where, closed=strict).ebnf
