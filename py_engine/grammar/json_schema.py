"""Checks of JSON Schemas before they are compiled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from py_engine.errors import InvalidResponseFormatError


@dataclass(frozen=True)
class CheckedSchema:
    """A schema as JSON text; `needs_validation`: a complete reply must be checked against it."""

    text: str
    needs_validation: bool


def check_json_schema(schema: Any, where: str, *, strict: bool) -> CheckedSchema:
    """Return the schema's text; all of it is validated after generation unless `strict`."""
    if not isinstance(schema, dict | bool):
        raise InvalidResponseFormatError(
            f"{where} is of type {type(schema).__name__}, but must be a JSON Schema: an object."
        )
    return CheckedSchema(json.dumps(schema), needs_validation=not strict)
