"""A grammar that is one of two, as a structural tag."""

from __future__ import annotations

import json
from typing import Any

from py_engine.grammar.spec import GrammarSpec


def either(first: GrammarSpec, second: GrammarSpec) -> GrammarSpec:
    """Return the grammar of a reply that follows `first` or `second`, each with its own `strict`.

    What is wrong with either of them is found when the grammar is compiled.
    """
    elements = [
        {"type": "structural_tag", "format": _format(spec), "strict": spec.strict}
        for spec in (first, second)
    ]
    tag = {"type": "structural_tag", "format": {"type": "or", "elements": elements}}
    return GrammarSpec("structural_tag", json.dumps(tag, ensure_ascii=False))


def _format(spec: GrammarSpec) -> Any:
    match spec.kind:
        case "json":
            schema = {"type": ["object", "array"], "additionalProperties": True}
            return {"type": "json_schema", "json_schema": schema}
        case "json_schema":
            return {"type": "json_schema", "json_schema": json.loads(spec.text)}
        case "ebnf":
            return {"type": "grammar", "grammar": spec.text}
        case "regex":
            return {"type": "regex", "pattern": spec.text}
        case "structural_tag":
            return json.loads(spec.text).get("format")
