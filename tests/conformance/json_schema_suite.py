"""The official JSON Schema test suite, draft 2020-12."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.conformance.make_json_schema_suite import DATA


@dataclass(frozen=True)
class Group:
    """One schema; `tests` are its instances with `data` and whether they are `valid`."""

    name: str
    schema: Any
    tests: tuple[dict[str, Any], ...]


@cache
def groups() -> tuple[Group, ...]:
    """Return all groups, each named after its file and description."""
    with gzip.open(DATA) as file:
        stored = json.load(file)
    return tuple(
        Group(f"{each['file']}: {each['description']}", each["schema"], tuple(each["tests"]))
        for each in stored
    )
