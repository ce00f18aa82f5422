"""`response_format` with the embedded model at temperature 1: followed, or an error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support.engine_worker import EngineWorker

HELPERS = '''
import sys
import types

from py_engine import config
from py_engine.engine import create_mlc_engine
from py_engine.errors import MLCError

engine = await create_mlc_engine(config.prebuilt_app_config.model_list[0].model_id)


async def reply(response_format, **fields):
    """Return the finish reason and the text of a reply, or the error's name and text."""
    try:
        response = await engine.chat.completions.create(
            messages=[{"role": "user", "content": "Tell me about a dog."}],
            response_format=response_format,
            **{"temperature": 1.0, "max_tokens": 150, "seed": 3} | fields,
        )
    except MLCError as error:
        return [type(error).__name__, str(error)]
    choice = response.choices[0]
    return [choice.finish_reason, choice.message.content]


helpers = types.ModuleType("format_helpers")
helpers.__dict__.update(engine=engine, reply=reply)
sys.modules["format_helpers"] = helpers
'''

ANIMAL = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": -3, "maximum": 20},
        "kind": {"enum": ["cat", "dog", "cow"]},
        "weight": {"type": "number", "exclusiveMinimum": 0.5, "maximum": 80},
        "born": {"type": "string", "format": "date"},
        "friends": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
    },
    "required": ["name", "age", "kind", "weight", "born", "friends"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def worker(engine_worker: EngineWorker) -> Iterator[EngineWorker]:
    engine_worker.run(HELPERS)
    yield engine_worker
    engine_worker.run("from format_helpers import engine\nawait engine.unload()")


async def replies(formats: list[dict[str, Any]]) -> list[list[str]]:
    from format_helpers import reply

    return [await reply(each, seed=index) for index, each in enumerate(formats)]


def strict(schema: Any, *, is_strict: bool = True) -> dict[str, Any]:
    """Return OpenAI's response format of a schema."""
    named = {"name": "answer", "schema": schema, "strict": is_strict}
    return {"type": "json_schema", "json_schema": named}


def test_strict_schema_is_followed(worker: EngineWorker) -> None:
    found = worker.run(replies, formats=[strict(ANIMAL)] * 4)
    ended = [json.loads(text) for reason, text in found if reason == "stop"]
    assert len(ended) >= 2, found
    for value in ended:
        Draft202012Validator(ANIMAL).validate(value)


def test_patterns_and_grammars_are_followed(worker: EngineWorker) -> None:
    formats = [
        {"type": "regex", "regex": r"[A-Z][a-z]{2,6} is \d{1,2} years old\."},
        {"type": "grammar", "grammar": 'root ::= "yes" | "no" "!"{1,3}'},
        {"type": "json_object"},
    ]
    (_, sentence), (_, answer), (_, value) = worker.run(replies, formats=formats)
    assert re.fullmatch(r"[A-Z][a-z]{2,6} is \d{1,2} years old\.", sentence)
    assert re.fullmatch("yes|no!{1,3}", answer)
    assert value.startswith(("{", "["))


def test_what_only_validation_finds_is_an_error_with_the_violation(worker: EngineWorker) -> None:
    never = {"enum": ["yes", "no"], "not": {"type": "string"}}
    [(error, text)] = worker.run(replies, formats=[strict(never, is_strict=False)])
    assert error == "ResponseFormatViolationError", text
    [(error, text)] = worker.run(replies, formats=[strict(never)])
    assert error == "InvalidResponseFormatError"
    assert "response_format.json_schema.schema.not" in text


def test_requests_after_a_bad_grammar_work(worker: EngineWorker) -> None:
    bad = {"type": "grammar", "grammar": "root ::= ("}
    good = {"type": "grammar", "grammar": 'root ::= "yes"'}
    first, second, third = worker.run(replies, formats=[bad, bad, good])
    assert first[0] == second[0] == "InvalidResponseFormatGrammarError"
    assert "Expect element" in first[1]
    assert third == ["stop", "yes"]
