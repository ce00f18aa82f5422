"""Grammars in the browser: what the wasm library cannot take becomes an error of ours."""

from __future__ import annotations

import itertools
import json
import random
import re
from typing import Any

import pytest

from py_engine.grammar import GrammarSpec
from py_engine.grammar.alternatives import either
from py_engine.grammar.ebnf import regex_ebnf
from py_engine.grammar.json_schema import schema_ebnf
from tests.support.engine_worker import EngineWorker

PIECES = ["</s>", *map(chr, range(32, 127)), "\n", "ab", '{"', '": ', '"}', "true", "null", "é"]


async def try_grammars(pieces: list[str], cases: list[list[Any]]) -> list[Any]:
    """For each [kind, text, strict] return the tokens that may come first, or the error."""
    from py_engine.errors import MLCError
    from py_engine.grammar import GrammarSpec
    from py_engine.grammar.backend_browser import BrowserGrammarCompiler
    from py_engine.grammar.vocabulary import Vocabulary

    vocabulary = Vocabulary(pieces, "raw", False, len(pieces) + 40, frozenset([0]))
    compiler = BrowserGrammarCompiler(vocabulary)
    found: list[Any] = []
    for kind, text, strict in cases:
        try:
            matcher = await (await compiler.compile(GrammarSpec(kind, text, strict))).matcher()
        except MLCError as error:
            found.append({"error": type(error).__name__, "text": str(error)})
            continue
        mask = (await matcher.mask()).to_bytes()
        assert len(mask) == 4 * -(-vocabulary.size // 32)
        found.append([pieces[i] for i in range(len(pieces)) if mask[i // 8] >> i % 8 & 1])
        matcher.close()
    compiler.destroy()
    return found


def run(worker: EngineWorker, *cases: tuple[str, str] | tuple[str, str, bool]) -> list[Any]:
    """Return what `try_grammars` finds for cases, strict where they do not say."""
    full = [[*case, True][:3] for case in cases]
    found: list[Any] = worker.run(try_grammars, pieces=PIECES, cases=full)
    return found


FAILURES = [
    ("json_schema", '{"type": "foo"}', "InvalidResponseFormatError", "'foo'"),
    ("json_schema", "false", "InvalidResponseFormatError", "no value"),
    ("json_schema", '{"a":', "InvalidResponseFormatError", "not valid JSON"),
    ("json_schema", '{"$ref": "#"}', "InvalidResponseFormatError", "endless"),
    ("json_schema", '{"type":"string","pattern":"("}', "InvalidResponseFormatError", "not closed"),
    ("ebnf", "root ::= (", "InvalidResponseFormatGrammarError", "Expect element"),
    ("ebnf", 'start ::= "a"', "InvalidResponseFormatGrammarError", 'root rule with name "root"'),
    ("ebnf", "root ::= other", "InvalidResponseFormatGrammarError", '"other" is not defined'),
    ("ebnf", "root ::= " + "(" * 3000, "InvalidResponseFormatGrammarError", "50 deep"),
    (
        *("ebnf", 'root ::= (("a"{1,300}){1,300}){1,300}'),
        *("InvalidResponseFormatGrammarError", "rule of its own"),
    ),
    ("regex", "a(", "InvalidResponseFormatGrammarError", "not closed"),
    ("regex", "(?=a)b", "InvalidResponseFormatGrammarError", "cannot follow"),
    ("regex", "(" * 3000, "InvalidResponseFormatGrammarError", "32 deep"),
    ("structural_tag", "{}", "InvalidResponseFormatStructuralTagError", "tag.format is"),
    (
        *("structural_tag", '{"format": {"type": "nope"}}'),
        *("InvalidResponseFormatStructuralTagError", "triggered_tags"),
    ),
    (
        *("structural_tag", '{"format": {"type": "json_schema", "json_schema": {"type": "no"}}}'),
        *("InvalidResponseFormatError", "format.json_schema.type"),
    ),
    (
        "structural_tag",
        json.dumps(
            {
                "format": {
                    "type": "sequence",
                    "elements": [{"type": "any_text"}, {"type": "const_string", "value": "a"}],
                }
            }
        ),
        *("InvalidResponseFormatStructuralTagError", "last part of a sequence"),
    ),
]


@pytest.mark.parametrize(("kind", "text", "error", "part"), FAILURES)
def test_what_cannot_be_compiled_is_an_error_twice_and_the_next_grammar_works(
    engine_worker: EngineWorker, kind: str, text: str, error: str, part: str
) -> None:
    first, second, after = run(engine_worker, (kind, text), (kind, text), ("json", ""))
    assert first["error"] == second["error"] == error
    assert part in first["text"]
    assert first["text"] == second["text"]
    assert sorted(after) == ["[", "{", '{"']


def test_a_hundred_failures_damage_nothing(engine_worker: EngineWorker) -> None:
    bad = [("ebnf", f"root ::= ({'x' * index}") for index in range(100)]
    found = run(engine_worker, *bad, ("ebnf", 'root ::= "ab" | [0-3]'))
    assert all(each["error"] == "InvalidResponseFormatGrammarError" for each in found[:-1])
    assert sorted(found[-1]) == sorted(["a", "ab", "0", "1", "2", "3"])


def test_deep_schemas_are_compiled_or_refused(engine_worker: EngineWorker) -> None:
    def nested(depth: int) -> str:
        schema: dict[str, Any] = {"type": "string"}
        for _ in range(depth):
            schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
        return json.dumps(schema)

    chain = {f"d{n}": {"items": {"$ref": f"#/$defs/d{n + 1}"}} for n in range(500)}
    linked = {"$ref": "#/$defs/d0", "$defs": {**chain, "d500": {"type": "null"}}}
    found = run(
        engine_worker,
        *(("json_schema", nested(depth)) for depth in (31, 32, 100)),
        ("json_schema", json.dumps(linked)),
    )
    assert sorted(found[0]) == ["{", '{"']
    assert [each["error"] for each in found[1:3]] == ["InvalidResponseFormatError"] * 2
    assert "32 schemas deep" in found[1]["text"]
    assert found[3] == ["["]


def test_first_tokens(engine_worker: EngineWorker) -> None:
    """C22 of the conformance list."""
    anything, closed, open_, ebnf = run(
        engine_worker,
        ("json_schema", "{}"),
        ("json_schema", '{"type": "object", "properties": {"ab": {}}}', True),
        ("json_schema", '{"type": "object", "properties": {"ab": {}}}', False),
        ("ebnf", 'root ::= "ab" tail\ntail ::= "!"'),
    )
    assert set(anything) == {*'"-0123456789[{tfn', '{"', "true", "null", '"}', '": '}
    assert closed == open_ == ["{", '{"']
    assert sorted(ebnf) == ["a", "ab"]


async def is_whole_reply(kind: str, text: str, pieces: list[str], ids: list[int]) -> bool:
    """Return whether the tokens follow a grammar to its end. Errors: GrammarMatcherError."""
    from py_engine.grammar import GrammarSpec
    from py_engine.grammar.backend_browser import BrowserGrammarCompiler
    from py_engine.grammar.vocabulary import Vocabulary

    vocabulary = Vocabulary(pieces, "raw", False, len(pieces), frozenset([0]))
    compiler = BrowserGrammarCompiler(vocabulary)
    matcher = await (await compiler.compile(GrammarSpec(kind, text))).matcher()
    for token_id in ids:
        matcher.accept(token_id)
    may_end = bool((await matcher.mask()).to_bytes()[0] & 1)
    matcher.close()
    compiler.destroy()
    return may_end


def test_json_that_may_also_be_a_call_has_any_properties(engine_worker: EngineWorker) -> None:
    spec = either(GrammarSpec("regex", "[a-c]+"), GrammarSpec("json"))
    for reply in (['{"', "a", '": ', "{", "}", "}"], ["a", "b"]):
        ids = [PIECES.index(piece) for piece in reply]
        arguments = {"kind": spec.kind, "text": spec.text, "pieces": PIECES, "ids": ids}
        assert engine_worker.run(is_whole_reply, **arguments)


async def texts_of(ebnf: str, pieces: list[str], length: int) -> list[str]:
    """Return all texts of a grammar that have at most so many pieces."""
    from py_engine.grammar import GrammarSpec
    from py_engine.grammar.backend_browser import BrowserGrammarCompiler
    from py_engine.grammar.vocabulary import Vocabulary

    vocabulary = Vocabulary(["", *pieces], "raw", False, len(pieces) + 1, frozenset([0]))
    compiler = BrowserGrammarCompiler(vocabulary)
    grammar = await compiler.compile(GrammarSpec("ebnf", ebnf))
    found, begun = [], [[]]
    while begun:
        ids = begun.pop()
        matcher = await grammar.matcher()
        for token_id in ids:
            matcher.accept(token_id)
        mask = int.from_bytes((await matcher.mask()).to_bytes(), "little")
        matcher.close()
        if mask & 1:
            found.append("".join(pieces[token_id - 1] for token_id in ids))
        if len(ids) < length:
            begun += [[*ids, i + 1] for i in range(len(pieces)) if mask >> i + 1 & 1]
    compiler.destroy()
    return found


def test_choices_of_texts_have_no_other_texts(engine_worker: EngineWorker) -> None:
    chance = random.Random(5)
    for _ in range(20):
        words = {"".join(chance.choices("abc", k=chance.choice([2, 3, 3, 4]))) for _ in range(8)}
        ebnf = schema_ebnf(json.dumps({"enum": sorted(words)}), strict=True)
        found = engine_worker.run(texts_of, ebnf=ebnf, pieces=['"', *"abc"], length=7)
        assert sorted(found) == sorted(f'"{word}"' for word in words)


@pytest.mark.parametrize(
    "pattern", ["(ab?|b(a|c)){1,2}", "a(b|bc)*c|abc", "[ab]{2}|b+c", "(a|aa)+b?"]
)
def test_patterns_match_what_python_matches(engine_worker: EngineWorker, pattern: str) -> None:
    found = engine_worker.run(texts_of, ebnf=regex_ebnf(pattern), pieces=list("abc"), length=5)
    texts = ("".join(each) for n in range(6) for each in itertools.product("abc", repeat=n))
    assert sorted(found) == sorted(text for text in texts if re.fullmatch(pattern, text))
