"""The grammar compiler that engine tests use follows real grammars."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from py_engine.errors import GrammarMatcherError, InvalidResponseFormatError
from py_engine.grammar import GrammarSpec
from tests.support.fake_grammar import FakeGrammarCompiler

TOKENS = ("", *'{}[]":,.-0123456789abcdefghijklmnopqrstuvwxyz ', "true", '{"a": ', '"},', "<end>")
STOP = TOKENS.index("<end>")

SCHEMA = {"properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "yes"]}}}
TAG = {
    "format": {
        "type": "triggered_tags",
        "triggers": ["<a"],
        "tags": [{"type": "tag", "begin": "<a>", "content": {"type": "any_text"}, "end": "</a>"}],
    }
}


def follow(spec: GrammarSpec, text: str) -> bool | None:
    """Return whether the reply may end after `text`, or None where a character is forbidden."""

    async def run() -> bool | None:
        tokens = ("", *sorted(set(text)), "<end>")
        stop = len(tokens) - 1
        compiler = FakeGrammarCompiler(tokens, len(tokens) + 40, {stop})
        matcher = await (await compiler.compile(spec)).matcher()
        for character in text:
            mask = await matcher.mask()
            assert len(mask) == 4 * -(-compiler.vocab_size // 32)
            token = tokens.index(character)
            if not mask[token // 8] >> token % 8 & 1:
                with pytest.raises(GrammarMatcherError):
                    matcher.accept(token)
                return None
            matcher.accept(token)
        mask = await matcher.mask()
        may_end = bool(mask[stop // 8] >> stop % 8 & 1)
        if may_end:
            matcher.accept(stop)
            assert matcher.is_terminated
            assert not any(await matcher.mask())
        matcher.close()
        return may_end

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("kind", "text", "reply", "expected"),
    [
        ("json", "", '{"a": [1, true, null, {"b": -0.5e3}]}', True),
        ("json", "", '{"a": [1', False),
        ("json", "", "[1,]", None),
        ("json", "", "1", None),
        ("regex", "[a-z]{2}|\\d+", "ab", True),
        ("regex", "[a-z]{2}|\\d+", "abc", None),
        ("ebnf", 'root ::= "yes" (tail | "\\n")*\ntail ::= [!?]', "yes!\n?", True),
        ("ebnf", 'root ::= "yes" (tail | "\\n")*\ntail ::= [!?]', "yep", None),
        ("json_schema", json.dumps(SCHEMA), '{"a": 12,"b":"yes"}', True),
        ("json_schema", json.dumps(SCHEMA), '{"b"', None),
        ("structural_tag", json.dumps(TAG), "hi <b> <a>x</a>!", True),
        ("structural_tag", json.dumps(TAG), "<a>x", False),
        ("structural_tag", json.dumps(TAG), "<ax", None),
    ],
)
def test_replies_follow_the_grammar(
    kind: Any, text: str, reply: str, expected: bool | None
) -> None:
    assert follow(GrammarSpec(kind, text), reply) is expected


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("regex", "a("),
        ("ebnf", 'start ::= "a"'),
        ("json_schema", "{"),
        ("structural_tag", '{"format": {"type": "odd"}}'),
    ],
)
def test_what_cannot_be_compiled_is_refused(kind: Any, text: str) -> None:
    async def run() -> None:
        await FakeGrammarCompiler(TOKENS, len(TOKENS), {STOP}).compile(GrammarSpec(kind, text))

    with pytest.raises(InvalidResponseFormatError):
        asyncio.run(run())


def test_it_counts_for_tests() -> None:
    async def run() -> None:
        compiler = FakeGrammarCompiler(TOKENS, len(TOKENS), {STOP})
        masks: list[int] = []
        compiler.on_mask = lambda: masks.append(1)
        grammar = await compiler.compile(GrammarSpec("json"))
        assert await compiler.compile(GrammarSpec("json")) is grammar
        assert compiler.compiled == [GrammarSpec("json")]
        matcher = await grammar.matcher()
        await matcher.mask()
        assert (compiler.open_matchers, masks) == (1, [1])
        matcher.close()
        assert compiler.open_matchers == 0

    asyncio.run(run())
