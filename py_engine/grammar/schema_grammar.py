"""JSON Schema (draft 2020-12) as a grammar whose texts are all valid by the schema.

xgrammar has a converter of its own, but 0.1.27's also lets through what is not valid: numbers out
of range, raw control characters, keywords it passes over. Here a keyword is either kept exactly or
noted in `ignored`. What the schema leaves open may be narrowed: properties come in the schema's
order, a schema with keywords of strings only is taken as one of strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from py_engine.errors import InvalidResponseFormatError
from py_engine.grammar.expressions import (
    EMPTY,
    NOTHING,
    Expr,
    Repeat,
    Rule,
    Text,
    alt,
    chars,
    finite,
    optional,
    repeat,
    seq,
    to_ebnf,
    without,
)
from py_engine.grammar.numbers import Bound, integers, numbers
from py_engine.grammar.patterns import UnsupportedPatternError, in_json_string
from py_engine.grammar.schema_check import MAX_SUBSCHEMAS, TYPES, Schema, SchemaDocument
from py_engine.grammar.schema_merge import (
    ANNOTATIONS,
    UnmergeableError,
    are_disjoint,
    merged,
    types_of,
)
from py_engine.grammar.string_formats import FORMATS

MAX_DISTINCT_KEYS = 2_000
"""Characters of the property names from which additional ones can be told apart."""

# Between two parts a space or a line break with its indentation, no more: a small model that may
# write white space without end does.
JSON_RULES = r"""ws ::= " "? | "\n" [ \t]{0,20}
char ::= [^"\\\u0000-\u001f] | "\\" (["\\/bfnrt] | "u" hex)
hex ::= [0-9ABCEFabcef] [0-9A-Fa-f]{3} | [Dd] [0-7] [0-9A-Fa-f]{2}
string ::= "\"" char* "\""
integer ::= "0" | "-"? [1-9] [0-9]{0,17}
number ::= "-"? ("0" | [1-9] [0-9]{0,17}) ("." [0-9]{1,17})? ([eE] [+-]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
pair ::= string ws ":" ws any ws
object ::= "{" ws (pair ("," ws pair)*)? "}"
array ::= "[" ws (any ws ("," ws any ws)*)? "]"
any ::= object | array | string | number | boolean | null
"""
_RULES = frozenset(line.split()[0] for line in JSON_RULES.splitlines())
_WS, _STRING, _ANY, _CHAR = Rule("ws"), Rule("string"), Rule("any"), Rule("char")
_QUOTE = Text('"')
_COMMA = seq(Text(","), _WS)

_STRING_KEYWORDS = ("format", "pattern", "minLength", "maxLength")
_RANGE_KEYWORDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_FAMILIES: dict[str, tuple[str, ...]] = {
    "string": _STRING_KEYWORDS,
    "number": (*_RANGE_KEYWORDS, "multipleOf"),
    "array": (
        *("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
        *("minContains", "maxContains", "unevaluatedItems"),
    ),
    "object": (
        *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
        *("patternProperties", "propertyNames", "unevaluatedProperties"),
        *("dependentRequired", "dependentSchemas", "dependencies"),
    ),
}
_NEVER_FOLLOWED = (
    *("not", "if", "contains", "patternProperties", "dependentRequired", "dependentSchemas"),
    "dependencies",
)


class SchemaGrammar:
    """A grammar of the valid texts of a schema, as EBNF with the rule "root".

    `closed` forbids properties that are not named where the schema says nothing about others.
    `ignored` lists what the grammar does not see to: (where, why).
    Errors: InvalidResponseFormatError.
    """

    def __init__(self, schema: Schema, where: str, *, closed: bool) -> None:
        self._document = SchemaDocument(schema, where)
        self._closed = closed
        self._rules: dict[str, Expr] = {}
        self._references: dict[str, Rule] = {}
        self._n_visits = 0
        self.ignored: list[tuple[str, str]] = []
        self._rules["root"] = EMPTY
        waiting: list[tuple[str, Schema, str]] = [("root", schema, where)]
        self._waiting = waiting
        while waiting:
            name, part, path = waiting.pop()
            self._rules[name] = self._value(part, path)
        rules = finite(self._rules, _RULES)
        if rules["root"] == NOTHING:
            raise InvalidResponseFormatError(
                f"{where} allows no value at all, or only endless ones. Look for false, for types "
                "and bounds that contradict each other, and for a required property that needs "
                "itself."
            )
        self.ebnf = to_ebnf({k: v for k, v in rules.items() if v != NOTHING}, JSON_RULES)

    def _ignore(self, where: str, why: str) -> None:
        self.ignored.append((where, why))

    def _new_rule(self, expr: Expr) -> Expr:
        """Give an expression that is used in several places a rule of its own."""
        if isinstance(expr, Rule | Text) or expr in (EMPTY, NOTHING):
            return expr
        name = f"rule_{len(self._rules)}"
        self._rules[name] = expr
        return Rule(name)

    def _value(self, schema: Schema, where: str) -> Expr:
        """Return the texts of a schema."""
        self._n_visits += 1
        if self._n_visits > 4 * MAX_SUBSCHEMAS:
            raise InvalidResponseFormatError(
                f"{where}: combining the schemas of anyOf and allOf gives too many of them. Make "
                "the schema smaller."
            )
        if isinstance(schema, bool):
            return _ANY if schema else NOTHING
        for keyword in _NEVER_FOLLOWED:
            if keyword in schema and not (keyword == "contains" and schema.get("minContains") == 0):
                self._ignore(f"{where}.{keyword}", "a grammar cannot follow it")
        rest = {
            keyword: value
            for keyword, value in schema.items()
            if keyword not in ANNOTATIONS and keyword not in _NEVER_FOLLOWED
        }
        for keyword in ("$ref", "allOf", "enum", "const", "anyOf", "oneOf"):
            if keyword in rest:
                value = rest.pop(keyword)
                return getattr(self, _METHODS[keyword])(value, rest, where)  # type: ignore[no-any-return]
        return self._typed(rest, where)

    def _reference(self, reference: str, rest: dict[str, Any], where: str) -> Expr:
        if rest:
            return self._all_of([{"$ref": reference}], rest, where)
        if reference not in self._references:
            self._references[reference] = rule = Rule(f"ref_{len(self._references)}")
            target = self._document.resolve(reference)
            self._waiting.append((rule.name, target, f"{where}.$ref ({reference})"))
        return self._references[reference]

    def _all_of(self, parts: list[Schema], rest: dict[str, Any], where: str) -> Expr:
        if len(parts) == 1 and not rest:
            return self._value(parts[0], f"{where}.allOf[0]")
        result: Schema = rest
        for part in parts:
            try:
                result = merged(result, self._resolved(part, where))
            except UnmergeableError as error:
                self._ignore(f"{where}.allOf", f"its schemas do not become one: {error}")
        return self._value(result, where)

    def _resolved(self, schema: Schema, where: str) -> Schema:
        """Follow a reference as long as there is one, and put what stands beside it to it."""
        followed = set()
        while not isinstance(schema, bool) and "$ref" in schema:
            reference = schema["$ref"]
            if reference in followed:
                raise InvalidResponseFormatError(
                    f"{where} refers to {reference}, which refers to itself. Put something between."
                )
            followed.add(reference)
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = merged(beside, self._document.resolve(reference))
        return schema

    def _enum(self, values: list[Any], rest: dict[str, Any], where: str) -> Expr:
        kept = [value for value in values if _type_of(value) in types_of(rest)]
        if "const" in rest:
            constant = json.dumps(rest.pop("const"), sort_keys=True)
            kept = [value for value in kept if json.dumps(value, sort_keys=True) == constant]
        left = sorted(rest.keys() - {"type"})
        if left:
            self._ignore(f"{where}.{left[0]}", "it stands beside enum or const")
        return alt(*(self._literal(value, where) for value in kept))

    def _const(self, value: Any, rest: dict[str, Any], where: str) -> Expr:
        return self._enum([value], rest, where)

    def _literal(self, value: Any, where: str) -> Expr:
        if isinstance(value, list):
            items = [self._literal(each, where) for each in value]
        elif isinstance(value, Mapping):
            items = [
                seq(Text(_json(name)), _WS, Text(":"), _WS, self._literal(each, where))
                for name, each in value.items()
            ]
        else:
            return Text(_json(value))
        first = seq(items[0], _WS) if items else EMPTY
        others = (seq(_COMMA, item, _WS) for item in items[1:])
        start, end = "[]" if isinstance(value, list) else "{}"
        return seq(Text(start), _WS, first, *others, Text(end))

    def _any_of(self, branches: list[Schema], rest: dict[str, Any], where: str) -> Expr:
        found = []
        for index, branch in enumerate(branches):
            path = f"{where}[{index}]" if where.endswith("Of") else f"{where}.anyOf[{index}]"
            try:
                schema = merged(rest, self._resolved(branch, path)) if rest else branch
            except UnmergeableError as error:
                self._ignore(path, f"it does not become one with what stands beside it: {error}")
                schema = branch
            found.append(self._new_rule(self._value(schema, path)))
        return alt(*found)

    def _one_of(self, branches: list[Schema], rest: dict[str, Any], where: str) -> Expr:
        def resolve(schema: Schema) -> Schema:
            return self._resolved(schema, where)

        pairs = ((a, b) for index, a in enumerate(branches) for b in branches[index + 1 :])
        if not all(are_disjoint(a, b, resolve) for a, b in pairs):
            why = (
                "two of its schemas may fit the same value. Use anyOf, or give each a required "
                "property with its own const"
            )
            self._ignore(f"{where}.oneOf", why)
        return self._any_of(branches, rest, f"{where}.oneOf")

    def _typed(self, schema: dict[str, Any], where: str) -> Expr:
        types = types_of(schema)
        if "type" not in schema:
            named = [
                kind for kind, words in _FAMILIES.items() if any(word in schema for word in words)
            ]
            if not named:
                return _ANY
            types = frozenset(named)
        if "number" in types:
            types -= {"integer"}
        makers = {
            "string": self._string,
            "number": self._number,
            "integer": self._integer,
            "array": self._array,
            "object": self._object,
        }
        ordered = [kind for kind in TYPES if kind in types]
        return alt(
            *(makers[kind](schema, where) if kind in makers else Rule(kind) for kind in ordered)
        )

    def _string(self, schema: Mapping[str, Any], where: str) -> Expr:
        given = [keyword for keyword in _STRING_KEYWORDS if keyword in schema]
        if "format" in given and schema["format"] not in FORMATS:
            given.remove("format")
            known = ", ".join(FORMATS)
            why = f"the format {schema['format']!r} is not known. There are: {known}"
            self._ignore(f"{where}.format", why)
        if not given:
            return _STRING
        length = (int(schema.get("minLength", 0)), _whole(schema.get("maxLength")))
        is_pattern = given[0] in ("format", "pattern")
        pattern = FORMATS[schema["format"]] if given[0] == "format" else schema.get("pattern", "")
        for keyword in given[1:] if is_pattern else ():
            self._ignore(f"{where}.{keyword}", f"it stands beside {given[0]}")
        try:
            inside = in_json_string(pattern, length)
        except UnsupportedPatternError as error:
            self._ignore(f"{where}.pattern", str(error))
            return _STRING
        return seq(_QUOTE, self._new_rule(inside), _QUOTE)

    def _integer(self, schema: Mapping[str, Any], where: str) -> Expr:
        self._check_multiple(schema, where, also=1)
        low, high = _bounds(schema)
        if low is None and high is None:
            return Rule("integer")
        least = None if low is None else _next_integer(low)
        most = None if high is None else -_next_integer((-high[0], high[1]))
        return self._new_rule(integers(least, most))

    def _number(self, schema: Mapping[str, Any], where: str) -> Expr:
        if float(schema.get("multipleOf", 0)) == 1:
            return self._integer(schema, where)
        self._check_multiple(schema, where, also=0)
        low, high = _bounds(schema)
        if low is None and high is None:
            return Rule("number")
        return self._new_rule(numbers(low, high))

    def _check_multiple(self, schema: Mapping[str, Any], where: str, also: int) -> None:
        if schema.get("multipleOf", also) != also:
            self._ignore(f"{where}.multipleOf", "a grammar cannot follow it")

    def _array(self, schema: Mapping[str, Any], where: str) -> Expr:
        low, high = int(schema.get("minItems", 0)), _whole(schema.get("maxItems"))
        if schema.get("uniqueItems") and (high is None or high > 1):
            self._ignore(f"{where}.uniqueItems", "a grammar cannot follow it")
        prefix = [
            seq(self._value(each, f"{where}.prefixItems[{index}]"), _WS)
            for index, each in enumerate(schema.get("prefixItems", ()))
        ][:high]
        others = schema.get("items", schema.get("unevaluatedItems", True))
        item = self._new_rule(seq(self._value(others, f"{where}.items"), _WS))
        n_others = max(0, low - len(prefix)), None if high is None else high - len(prefix)
        if not prefix:
            many = seq(item, repeat(seq(_COMMA, item), max(0, low - 1), high and high - 1))
            empty = EMPTY if low == 0 else NOTHING
            return seq(Text("["), _WS, alt(NOTHING if high == 0 else many, empty), Text("]"))
        tail = repeat(seq(_COMMA, item), *n_others)
        for index in range(len(prefix) - 1, -1, -1):
            tail = seq(_COMMA if index else EMPTY, prefix[index], tail)
            if index >= low:
                tail = self._new_rule(optional(tail))
        return seq(Text("["), _WS, tail, Text("]"))

    def _object(self, schema: Mapping[str, Any], where: str) -> Expr:
        properties: dict[str, Schema] = dict(schema.get("properties", {}))
        required = set(schema.get("required", ()))
        others: Schema = schema.get("additionalProperties", schema.get("unevaluatedProperties"))
        is_open = others is not False and (others is not None or not self._closed)
        others = True if others is None else others
        for name in schema.get("required", ()):
            properties.setdefault(name, others)
        low, high = int(schema.get("minProperties", 0)), _whole(schema.get("maxProperties"))
        extra: Expr = NOTHING
        if is_open and others is not False:
            extra = self._extra_property(list(properties), others, schema, where)
        if properties and "propertyNames" in schema:
            self._ignore(f"{where}.propertyNames", "it stands beside properties")
        for name in list(properties):  # enough of them for minProperties
            if len(required) < low:
                required.add(name)
        has_too_many = high is not None and (len(properties) > high or extra != NOTHING)
        if has_too_many and properties:
            self._ignore(f"{where}.maxProperties", "there may be more properties than that")
        n_extra = max(0, low - len(properties))
        if n_extra > 1 and extra != NOTHING:  # two of them may have the same name
            self._ignore(f"{where}.minProperties", "that many additional properties may be one")
        if not properties:
            return self._map(extra, n_extra, high)
        members = [
            (self._property(name, each, f"{where}.properties.{name}"), name in required)
            for name, each in properties.items()
        ]
        return seq(Text("{"), _WS, self._members(members, extra, n_extra), Text("}"))

    def _map(self, extra: Expr, low: int, high: int | None) -> Expr:
        many = seq(extra, repeat(seq(_COMMA, extra), max(0, low - 1), high and high - 1))
        empty = EMPTY if low == 0 else NOTHING
        return seq(Text("{"), _WS, alt(NOTHING if high == 0 else many, empty), Text("}"))

    def _members(self, members: list[tuple[Expr, bool]], extra: Expr, n_extra: int) -> Expr:
        """Return the properties in their order, the ones not required optional, then others."""
        after = repeat(seq(_COMMA, extra), n_extra, None)
        alone = repeat(seq(extra, repeat(seq(_COMMA, extra), max(0, n_extra - 1), None)), 1, 1)
        alone = optional(alone) if n_extra == 0 else alone
        for member, is_required in reversed(members):
            first, later = seq(member, after), seq(_COMMA, member, after)
            if is_required:
                alone, after = first, later
            else:
                alone, after = alt(first, alone), alt(later, after)
            alone, after = self._new_rule(alone), self._new_rule(after)
        return alone

    def _property(self, name: str, schema: Schema, where: str) -> Expr:
        value = self._new_rule(self._value(schema, where))
        return self._new_rule(seq(Text(_json(name)), _WS, Text(":"), _WS, value, _WS))

    def _extra_property(
        self, names: list[str], schema: Schema, parent: Mapping[str, Any], where: str
    ) -> Expr:
        """Return one property of any other name."""
        key: Expr = _STRING
        if names:
            if sum(map(len, names)) > MAX_DISTINCT_KEYS:
                return NOTHING
            key = self._other_key(names)
        elif "propertyNames" in parent:
            allowed = {"allOf": [{"type": "string"}, parent["propertyNames"]]}
            key = self._value(allowed, f"{where}.propertyNames")
        value = self._value(schema, f"{where}.additionalProperties")
        return self._new_rule(seq(key, _WS, Text(":"), _WS, value, _WS))

    def _other_key(self, names: Iterable[str]) -> Expr:
        """Return the keys that are none of `names`."""

        def after(tails: set[str]) -> Expr:
            ways: list[Expr] = [NOTHING if "" in tails else _QUOTE]
            taken = sorted({tail[0] for tail in tails if tail})
            for character in taken:
                inner = after({tail[1:] for tail in tails if tail[:1] == character})
                ways.append(seq(Text(_json(character)[1:-1]), inner))
            free = without(_PLAIN, tuple((ord(each), ord(each)) for each in taken))
            ways.append(seq(chars(*free), Repeat(_CHAR, 0, None), _QUOTE))
            return self._new_rule(alt(*ways))

        return seq(_QUOTE, after(set(names)))


_PLAIN = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, 0x10FFFF))
_METHODS = {
    "$ref": "_reference",
    "allOf": "_all_of",
    "enum": "_enum",
    "const": "_const",
    "anyOf": "_any_of",
    "oneOf": "_one_of",
}


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(value)
    return text


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    kinds = {float: "number", str: "string", list: "array", type(None): "null"}
    return kinds.get(type(value), "object")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _bounds(schema: Mapping[str, Any]) -> tuple[Bound | None, Bound | None]:
    """Return the narrower of the including and the excluding bound on either side."""
    found: list[Bound | None] = []
    for including, excluding, pick in (
        ("minimum", "exclusiveMinimum", max),
        ("maximum", "exclusiveMaximum", min),
    ):
        both = [
            (Decimal(repr(schema[keyword])), keyword == excluding)
            for keyword in (including, excluding)
            if keyword in schema
        ]
        values = [value for value, _ in both]
        nearest = pick(values) if values else None
        found.append(
            None
            if nearest is None
            else (nearest, any(excluded for value, excluded in both if value == nearest))
        )
    return found[0], found[1]


def _next_integer(low: Bound) -> int:
    value, is_excluded = low
    whole = int(value.to_integral_value(rounding="ROUND_CEILING"))
    return whole + 1 if is_excluded and whole == value else whole
