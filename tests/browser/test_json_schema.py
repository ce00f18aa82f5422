"""Every schema of the official suite that we accept yields only valid replies.

Replies are drawn at random from the masks, without a model, over the embedded model's tokens.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from referencing.exceptions import Unresolvable

from py_engine.errors import InvalidResponseFormatError
from py_engine.grammar.json_schema import check_json_schema
from py_engine.tooling.steps import ROOT
from tests.conformance.json_schema_suite import groups
from tests.support.engine_worker import EngineWorker

MODEL = ROOT / "web" / "models" / "Llama-Storyteller-7M-q4f16_1-MLC"
REPLIES = 2
FORMATS = FormatChecker(["date", "email", "ipv4", "ipv6", "uuid"])
# The validator also checks formats, which the draft leaves open (groups of format.json), and keeps
# to the keywords' meaning where a schema's own dialect takes it away.
VALIDATED_OTHERWISE = {
    "vocabulary.json: schema that uses custom metaschema with with no validation vocabulary"
}


async def random_replies(
    tokenizer_json: str, schemas: list[str], strict: bool, n_replies: int
) -> list[list[str]]:
    """Draw replies for each schema; only those that ended are returned."""
    import random

    from py_engine.grammar import Grammar, GrammarSpec
    from py_engine.grammar.backend_browser import BrowserGrammarCompiler
    from py_engine.grammar.vocabulary import vocabulary_of
    from py_engine.tokenizer import tokenizer_from_json

    tokenizer = await tokenizer_from_json(tokenizer_json)
    size, stop = tokenizer.vocab_size, min(tokenizer.special_ids)
    pieces = [tokenizer.token_bytes(token_id) for token_id in range(size)]
    closing = sum(1 << i for i, piece in enumerate(pieces) if piece and not piece.strip(b'"}],:0 '))
    compiler = BrowserGrammarCompiler(vocabulary_of(tokenizer, size, frozenset([stop])))
    chance = random.Random(7)

    def one_of(bits: int) -> int:
        for _ in range(50):
            index = chance.randrange(size)
            if bits >> index & 1:
                return index
        return chance.choice([index for index in range(size) if bits >> index & 1])

    def draw(mask: bytes, n_drawn: int) -> int:
        allowed = int.from_bytes(mask, "little") & (1 << size) - 1
        assert allowed, "a dead end"
        if n_drawn > 20 and allowed >> stop & 1:
            return stop
        is_closing = allowed & closing and (n_drawn > 20 or chance.random() < 0.3)
        return one_of(allowed & closing if is_closing else allowed)

    async def reply(grammar: Grammar) -> str | None:
        matcher = await grammar.matcher()
        ids: list[int] = []
        while not matcher.is_terminated and len(ids) < 80:
            ids.append(draw((await matcher.mask()).to_bytes(), len(ids)))
            matcher.accept(ids[-1])
        is_complete = matcher.is_terminated
        matcher.close()
        if not is_complete:
            return None
        try:
            return b"".join(pieces[token_id] for token_id in ids if token_id != stop).decode()
        except UnicodeDecodeError:  # bytes that are no characters, drawn one by one
            return None

    found = []
    for schema in schemas:
        grammar = await compiler.compile(GrammarSpec("json_schema", schema, strict))
        replies = [await reply(grammar) for _ in range(n_replies)]
        found.append([text for text in replies if text is not None])
    compiler.destroy()
    tokenizer.destroy()
    return found


def accepted(strict: bool) -> list[tuple[str, Any, bool]]:
    """Return (name, schema, needs validation) of the schemas that are accepted."""
    found = []
    for group in groups():
        try:
            checked = check_json_schema(group.schema, "schema", strict=strict)
        except InvalidResponseFormatError:
            continue
        found.append((group.name, group.schema, checked.needs_validation))
    return found


def errors_of(schema: Any, text: str) -> list[str]:
    """Return what the oracle finds wrong; ValueError where the text is no JSON."""
    validator = Draft202012Validator(schema, format_checker=FORMATS)
    return [error.message for error in validator.iter_errors(json.loads(text))]


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
def test_replies_are_valid_or_known_to_need_validation(
    engine_worker: EngineWorker, strict: bool
) -> None:
    schemas = accepted(strict)
    replies = engine_worker.run(
        random_replies,
        tokenizer_json=(MODEL / "tokenizer.json").read_text(encoding="utf-8"),
        schemas=[json.dumps(schema) for _, schema, _ in schemas],
        strict=strict,
        n_replies=REPLIES,
    )
    wrong, n_checked = [], 0
    beyond_oracle: set[str] = set()
    to_refuse: list[list[Any]] = []
    for (name, schema, needs_validation), texts in zip(schemas, replies, strict=True):
        for text in texts:
            try:
                errors = errors_of(schema, text)
            except (Unresolvable, re.error):  # what Python's validator cannot take
                beyond_oracle.add(name)
                continue
            n_checked += 1
            if errors and needs_validation:
                to_refuse.append([json.dumps(schema), [text]])
            elif errors:
                wrong.append((name, text, errors[0]))
    assert not wrong
    assert engine_worker.run(validate_all, cases=to_refuse) == [[False]] * len(to_refuse)
    assert len(to_refuse) > 20 or strict
    assert len(beyond_oracle) <= 8
    assert not (strict and any(needs_validation for _, _, needs_validation in schemas))
    assert n_checked > 0.9 * REPLIES * len(schemas)


def test_how_many_schemas_are_accepted() -> None:
    n_accepted = [len(accepted(strict)) for strict in (True, False)]
    assert [len(groups()), *n_accepted] == [438, 229, 368]


async def validate_all(cases: list[list[Any]]) -> list[list[bool]]:
    """Return for [schema, instances] which instances the host's validator takes for valid."""
    from py_engine.browser_host import BrowserHost

    host = BrowserHost()
    return [
        [not await host.validate_json(schema, instance) for instance in instances]
        for schema, instances in cases
    ]


def test_validator_gives_the_official_results(engine_worker: EngineWorker) -> None:
    names = {name for name, _, _ in accepted(strict=False)}
    official = [group for group in groups() if group.name in names - VALIDATED_OTHERWISE]
    official = [group for group in official if not group.name.startswith(("optional/", "format."))]
    cases = [
        [json.dumps(group.schema), [json.dumps(test["data"]) for test in group.tests]]
        for group in official
    ]
    results = engine_worker.run(validate_all, cases=cases)
    wrong = {
        group.name
        for group, found in zip(official, results, strict=True)
        if found != [test["valid"] for test in group.tests]
    }
    assert not wrong
    assert len(official) > 250


def test_what_is_no_json_is_invalid(engine_worker: EngineWorker) -> None:
    cases = [["{}", ["[1", "", "{}"]], ['{"type": "string", "pattern": "("}', ['"a"']]]
    assert engine_worker.run(validate_all, cases=cases) == [[False, False, True], [False]]
