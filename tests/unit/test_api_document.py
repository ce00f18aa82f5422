"""docs/api.md names tests that exist, and every field and error of a request."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params

from py_engine import errors
from py_engine.api.known_fields import (
    CHAT_FIELDS,
    COMPLETION_FIELDS,
    EMBEDDING_FIELDS,
    WITHOUT_EFFECT,
    KnownFields,
)

TESTS = Path(__file__).parents[1]
DOCUMENT = (TESTS.parent / "docs" / "api.md").read_text(encoding="utf-8")
TEST_IDS = sorted(set(re.findall(r"`(\w+/test_\w+\.py::\w+)`", DOCUMENT)))
REQUEST_ERRORS = [
    name
    for name, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.RequestError) and value is not errors.RequestError
]
ENDPOINTS = {
    "Chat completions": (CHAT_FIELDS, chat_create_params.CompletionCreateParamsBase),
    "Text completions": (COMPLETION_FIELDS, completion_create_params.CompletionCreateParamsBase),
    "Embeddings": (EMBEDDING_FIELDS, embedding_create_params.EmbeddingCreateParams),
}


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


def section(title: str) -> str:
    return DOCUMENT.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines]


@pytest.mark.parametrize("test_id", TEST_IDS)
def test_named_test_exists(test_id: str) -> None:
    path, _, name = test_id.partition("::")
    assert name in functions(TESTS / path)


def test_no_test_is_named_in_another_form() -> None:
    assert len(re.findall(r"\.py\b", DOCUMENT)) == len(re.findall(r"`\w+/test_\w+\.py::", DOCUMENT))


@pytest.mark.parametrize("title", ENDPOINTS)
def test_every_field_has_its_row(title: str) -> None:
    known: KnownFields = ENDPOINTS[title][0]
    named = set(re.findall(r"`(\w+)`", section(title)))
    if title == "Text completions":
        named |= set(re.findall(r"`(\w+)`", section("Chat completions")))
    fields = known.supported | known.refused.keys()
    assert fields | (WITHOUT_EFFECT if title == "Chat completions" else set()) <= named


@pytest.mark.parametrize("title", ENDPOINTS)
def test_every_field_of_openais_types_is_known(title: str) -> None:
    known, parameters = ENDPOINTS[title]
    names = set(parameters.__annotations__) | {"stream"}
    assert names <= known.supported | known.refused.keys() | WITHOUT_EFFECT | {"stream"}


@pytest.mark.parametrize("title", ENDPOINTS)
def test_every_row_of_a_field_names_a_test(title: str) -> None:
    table = section(title).partition("\n### ")[0]
    fields = [row for row in rows(table) if row[0] != "field"]
    assert len(fields) > 4
    for row in fields:
        assert re.search(r"`\w+/test_\w+\.py::\w+`", row[3]), row


@pytest.mark.parametrize("name", REQUEST_ERRORS)
def test_every_error_of_a_request_is_there(name: str) -> None:
    assert re.search(rf"\b{name}\b", section("Errors"))


def test_every_case_of_webllms_list_is_there() -> None:
    cases = {row[0]: row[2] for row in rows(section("Conformance with WebLLM"))[1:]}
    assert list(cases) == [f"C{number}" for number in range(1, 23)]
    for text in cases.values():
        assert "::test_" in text or "does not apply" in text
