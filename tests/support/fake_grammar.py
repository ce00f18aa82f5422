"""A GrammarCompiler for engine tests in CPython: real grammars, by brute force over all tokens.

Grammars become patterns of PyPI's `regex`, which can say whether a text is the beginning of a
match. It knows what tests need of JSON Schema, EBNF and structural tags, and fails on the rest.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import regex

from py_engine.errors import (
    GrammarMatcherError,
    InvalidResponseFormatError,
    InvalidResponseFormatGrammarError,
    InvalidResponseFormatStructuralTagError,
)
from py_engine.grammar import GrammarSpec

_JSON_RULES = r"""(?(DEFINE)
(?<ws>[ \n\t]*)
(?<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")
(?<integer>-?(?:0|[1-9][0-9]*))
(?<number>(?&integer)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
(?<boolean>true|false)
(?<null>null)
(?<value>(?&string)|(?&number)|(?&boolean)|(?&null)|(?&object)|(?&array))
(?<member>(?&string)(?&ws):(?&ws)(?&value)(?&ws))
(?<object>\{(?&ws)(?:(?&member)(?:,(?&ws)(?&member))*)?\})
(?<array>\[(?&ws)(?:(?&value)(?&ws)(?:,(?&ws)(?&value)(?&ws))*)?\]))"""
_EBNF_PARTS = regex.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|[A-Za-z_]\w*|[|()*+?]|\s+')


class FakeGrammarCompiler:
    """Implements `GrammarCompiler` for tokens given as text, by id; a token of "" is never allowed.

    `compiled` lists the specs that were compiled, in order; `open_matchers` counts those that are
    not closed yet. Both are for tests to look at, and so is `on_mask`, which is called before each
    mask is made.
    """

    def __init__(
        self, tokens: Sequence[str], vocab_size: int, stop_token_ids: Collection[int]
    ) -> None:
        self.tokens = tuple(tokens)
        self.vocab_size = vocab_size
        self.stop_token_ids = frozenset(stop_token_ids)
        self.compiled: list[GrammarSpec] = []
        self.open_matchers = 0
        self.is_destroyed = False
        self.on_mask: Callable[[], None] | None = None
        self._grammars: dict[GrammarSpec, FakeGrammar] = {}

    async def compile(self, spec: GrammarSpec) -> FakeGrammar:
        assert not self.is_destroyed, "used after destroy"
        if spec not in self._grammars:
            self.compiled.append(spec)
            self._grammars[spec] = FakeGrammar(self, _compiled(spec))
        return self._grammars[spec]

    def destroy(self) -> None:
        self.is_destroyed = True


class FakeGrammar:
    def __init__(self, compiler: FakeGrammarCompiler, pattern: regex.Pattern[str]) -> None:
        self._compiler = compiler
        self._pattern = pattern

    async def matcher(self) -> FakeMatcher:
        return FakeMatcher(self._compiler, self._pattern)


class FakeMatcher:
    """Implements `GrammarMatcher`; `text` is what was accepted."""

    def __init__(self, compiler: FakeGrammarCompiler, pattern: regex.Pattern[str]) -> None:
        self.text = ""
        self.is_terminated = False
        self._compiler = compiler
        self._pattern = pattern
        self._is_closed = False
        compiler.open_matchers += 1

    async def mask(self) -> bytes:
        assert not self._is_closed and not self._compiler.is_destroyed, "used after its end"
        if self._compiler.on_mask is not None:
            self._compiler.on_mask()
        words = array("I", bytes(4 * -(-self._compiler.vocab_size // 32)))
        for token_id in range(len(self._compiler.tokens)):
            if self._allows(token_id):
                words[token_id // 32] |= 1 << token_id % 32
        return words.tobytes()

    def accept(self, token_id: int) -> None:
        assert not self._is_closed, "used after its end"
        if not self._allows(token_id):
            raise GrammarMatcherError(f"token {token_id} is not allowed after {self.text!r}")
        if token_id in self._compiler.stop_token_ids:
            self.is_terminated = True
        else:
            self.text += self._compiler.tokens[token_id]

    def close(self) -> None:
        assert not self._is_closed, "closed twice"
        self._is_closed = True
        self._compiler.open_matchers -= 1

    def _allows(self, token_id: int) -> bool:
        if self.is_terminated:
            return False
        if token_id in self._compiler.stop_token_ids:
            match = self._pattern.fullmatch(self.text, partial=True)
            return match is not None and not match.partial
        token = self._compiler.tokens[token_id]
        return bool(token) and bool(self._pattern.fullmatch(self.text + token, partial=True))


def _compiled(spec: GrammarSpec) -> regex.Pattern[str]:
    makers: Mapping[str, Callable[[GrammarSpec], str]] = {
        "json": lambda spec: "(?:(?&object)|(?&array))",
        "json_schema": lambda spec: _schema(_parsed(spec.text, InvalidResponseFormatError)),
        "regex": lambda spec: f"(?:{spec.text})",
        "ebnf": lambda spec: _ebnf(spec.text),
        "structural_tag": lambda spec: _tag(
            _parsed(spec.text, InvalidResponseFormatStructuralTagError)["format"]
        ),
    }
    try:
        return regex.compile(_JSON_RULES.replace("\n", "") + makers[spec.kind](spec))
    except regex.error as error:
        raise InvalidResponseFormatGrammarError(f"{spec.text!r}: {error}") from error


def _parsed(text: str, error_class: type[Exception]) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise error_class(f"{text!r} is not JSON: {error}") from error


def _one_of(patterns: Sequence[str]) -> str:
    return f"(?:{'|'.join(patterns)})"


def _schema(schema: Any) -> str:
    """Return the pattern of a schema: enum, const, anyOf, objects, arrays, single types."""
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return _one_of([regex.escape(json.dumps(value)) for value in values])
    if "anyOf" in schema:
        return _one_of([_schema(each) for each in schema["anyOf"]])
    if "properties" in schema:
        members = (
            regex.escape(json.dumps(name)) + "(?&ws):(?&ws)" + _schema(value)
            for name, value in schema["properties"].items()
        )
        return r"\{(?&ws)" + "(?&ws),(?&ws)".join(members) + r"(?&ws)\}"
    if "items" in schema:
        item = _schema(schema["items"])
        return rf"\[(?&ws)(?:{item}(?&ws)(?:,(?&ws){item}(?&ws))*)?\]"
    return f"(?&{schema.get('type', 'value')})"


def _ebnf(text: str) -> str:
    """Return the pattern of rules like `root ::= "a" (b | [0-9])*`, one a line."""
    rules = []
    for line in filter(str.strip, text.splitlines()):
        name, arrow, body = line.partition("::=")
        parts = _EBNF_PARTS.findall(body)
        if not arrow or "".join(parts) != body:
            raise InvalidResponseFormatGrammarError(f"this rule cannot be read: {line!r}")
        rules.append(f"(?<r_{name.strip()}>{''.join(map(_ebnf_part, parts))})")
    if not any(rule.startswith("(?<r_root>") for rule in rules):
        raise InvalidResponseFormatGrammarError("the grammar has no rule 'root'")
    return f"(?(DEFINE){''.join(rules)})(?&r_root)"


def _ebnf_part(part: str) -> str:
    if part.startswith('"'):
        return f"(?:{regex.escape(json.loads(part))})"
    if part[0].isalpha() or part[0] == "_":
        return f"(?&r_{part})"
    return part.strip()


def _tag(form: Mapping[str, Any]) -> str:
    """Return the pattern of a structural tag's format."""
    match form["type"]:
        case "const_string":
            return regex.escape(form["value"])
        case "regex":
            return f"(?:{form['pattern']})"
        case "any_text":
            return "(?s:.*)"
        case "json_schema":
            return _schema(form["json_schema"])
        case "tag":
            return regex.escape(form["begin"]) + _tag(form["content"]) + regex.escape(form["end"])
        case "sequence":
            return "".join(map(_tag, form["elements"]))
        case "structural_tag":
            return _tag(form["format"])
        case "or":
            return _one_of([_tag(each) for each in form["elements"]])
        case "tags_with_separator":
            tag = _one_of([_tag(each) for each in form["tags"]])
            some = f"{tag}(?:{regex.escape(form['separator'])}{tag})*"
            return some if form.get("at_least_one") else f"(?:{some})?"
        case "triggered_tags":
            text = f"(?s:(?!{_one_of(list(map(regex.escape, form['triggers'])))}).)*"
            return f"{text}(?:{_one_of([_tag(each) for each in form['tags']])}{text})*"
        case other:
            raise InvalidResponseFormatStructuralTagError(f"unknown format {other!r}")
