"""JSON Schema (draft 2020-12) as a grammar whose texts are all valid by the schema.

xgrammar has a converter of its own, but 0.1.27's also lets through what is not valid: numbers out
of range, raw control characters, keywords it passes over. Here a keyword is either kept exactly or
noted in `ignored`. What the schema leaves open may be narrowed: properties come in the schema's
order, a schema with keywords of strings only is taken as one of strings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from py_engine.errors import InvalidResponseFormatError
from py_engine.grammar.ebnf_writer import to_ebnf
from py_engine.grammar.expressions import EMPTY, NOTHING, Expr, Rule, alt, finite
from py_engine.grammar.grammar_builder import GrammarBuilder
from py_engine.grammar.json_rules import ANY, JSON_RULES, RULE_NAMES, literal
from py_engine.grammar.schema_arrays import ARRAY_KEYWORDS, array_expr
from py_engine.grammar.schema_check import MAX_SUBSCHEMAS, TYPES, Schema, SchemaDocument
from py_engine.grammar.schema_merge import (
    ANNOTATIONS,
    UnmergeableError,
    are_disjoint,
    merged,
    resolved,
    type_of,
    types_of,
)
from py_engine.grammar.schema_numbers import NUMBER_KEYWORDS, integer_expr, number_expr
from py_engine.grammar.schema_objects import OBJECT_KEYWORDS, object_expr
from py_engine.grammar.schema_strings import STRING_KEYWORDS, string_expr

MAX_CONVERTED = 4 * MAX_SUBSCHEMAS
"""Schemas that one may come to when anyOf and allOf are combined."""

_KEYWORDS_OF_TYPES = {
    "string": STRING_KEYWORDS,
    "number": NUMBER_KEYWORDS,
    "array": ARRAY_KEYWORDS,
    "object": OBJECT_KEYWORDS,
}
_NEVER_FOLLOWED = (
    *("not", "if", "contains", "patternProperties", "dependentRequired", "dependentSchemas"),
    "dependencies",
)


@dataclass(frozen=True)
class SchemaGrammar:
    """A grammar of the valid texts of a schema: EBNF with the rule "root".

    `ignored` lists what it does not see to: (where, why). A reply by a grammar that ignores nothing
    is valid.
    """

    ebnf: str
    ignored: tuple[tuple[str, str], ...]


def schema_grammar(schema: Schema, where: str, *, closed: bool) -> SchemaGrammar:
    """Return the grammar of a schema, which `where` names in errors.

    `closed` forbids properties that are not named where the schema says nothing about others.
    Errors: InvalidResponseFormatError.
    """
    converter = _Converter(SchemaDocument(schema, where), closed)
    converter.convert(schema, where)
    rules = finite(converter.builder.rules, RULE_NAMES)
    if rules["root"] == NOTHING:
        raise InvalidResponseFormatError(
            f"{where} allows no value at all, or only endless ones. Look for false, for types "
            "and bounds that contradict each other, and for a required property that needs "
            "itself."
        )
    ebnf = to_ebnf({name: expr for name, expr in rules.items() if expr != NOTHING}, JSON_RULES)
    return SchemaGrammar(ebnf, tuple(converter.builder.ignored))


class _Converter:
    """Goes through one schema; `rest` are the keywords beside the one that a method follows."""

    def __init__(self, document: SchemaDocument, closed: bool) -> None:
        self.builder = GrammarBuilder({"root": EMPTY})
        self._document = document
        self._closed = closed
        self._references: dict[str, Rule] = {}
        self._waiting: list[tuple[str, Schema, str]] = []
        self._n_converted = 0

    def convert(self, schema: Schema, where: str) -> None:
        """Make the rule "root" and those of all references, which may refer to themselves."""
        self._waiting.append(("root", schema, where))
        while self._waiting:
            name, part, path = self._waiting.pop()
            self.builder.rules[name] = self._expr(part, path)

    def _expr(self, schema: Schema, where: str) -> Expr:
        self._n_converted += 1
        if self._n_converted > MAX_CONVERTED:
            raise InvalidResponseFormatError(
                f"{where}: combining the schemas of anyOf and allOf gives too many of them. Make "
                "the schema smaller."
            )
        if isinstance(schema, bool):
            return ANY if schema else NOTHING
        for keyword in _NEVER_FOLLOWED:
            if keyword in schema and not (keyword == "contains" and schema.get("minContains") == 0):
                self.builder.ignore(f"{where}.{keyword}", "a grammar cannot follow it")
        rest = {
            keyword: value
            for keyword, value in schema.items()
            if keyword not in ANNOTATIONS and keyword not in _NEVER_FOLLOWED
        }
        for keyword, follow in _BEFORE_TYPES.items():
            if keyword in rest:
                return follow(self, rest.pop(keyword), rest, where)
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
            return self._expr(parts[0], f"{where}.allOf[0]")
        result: Schema = rest
        for part in parts:
            try:
                result = merged(result, resolved(part, self._document, where))
            except UnmergeableError as error:
                self.builder.ignore(f"{where}.allOf", f"its schemas do not become one: {error}")
        return self._expr(result, where)

    def _enum(self, values: list[Any], rest: dict[str, Any], where: str) -> Expr:
        kept = [value for value in values if type_of(value) in types_of(rest)]
        if "const" in rest:
            constant = json.dumps(rest.pop("const"), sort_keys=True)
            kept = [value for value in kept if json.dumps(value, sort_keys=True) == constant]
        left = sorted(rest.keys() - {"type"})
        if left:
            self.builder.ignore(f"{where}.{left[0]}", "it stands beside enum or const")
        return alt(*map(literal, kept))

    def _const(self, value: Any, rest: dict[str, Any], where: str) -> Expr:
        return self._enum([value], rest, where)

    def _any_of(self, branches: list[Schema], rest: dict[str, Any], where: str) -> Expr:
        return self._branches(branches, rest, f"{where}.anyOf")

    def _one_of(self, branches: list[Schema], rest: dict[str, Any], where: str) -> Expr:
        def resolve(schema: Schema) -> Schema:
            return resolved(schema, self._document, where)

        pairs = ((a, b) for index, a in enumerate(branches) for b in branches[index + 1 :])
        if not all(are_disjoint(a, b, resolve) for a, b in pairs):
            why = (
                "two of its schemas may fit the same value. Use anyOf, or give each a required "
                "property with its own const"
            )
            self.builder.ignore(f"{where}.oneOf", why)
        return self._branches(branches, rest, f"{where}.oneOf")

    def _branches(self, branches: list[Schema], rest: dict[str, Any], where: str) -> Expr:
        """Return any of the schemas, each with the keywords beside them all."""
        found = []
        for index, branch in enumerate(branches):
            path, schema = f"{where}[{index}]", branch
            if rest:
                try:
                    schema = merged(rest, resolved(branch, self._document, path))
                except UnmergeableError as error:
                    why = f"it does not become one with what stands beside it: {error}"
                    self.builder.ignore(path, why)
            found.append(self.builder.add_rule(self._expr(schema, path)))
        return alt(*found)

    def _typed(self, schema: Mapping[str, Any], where: str) -> Expr:
        """Return the values of a schema's types, or of those that its keywords are about."""
        types = types_of(schema)
        if "type" not in schema:
            types = frozenset(
                kind
                for kind, keywords in _KEYWORDS_OF_TYPES.items()
                if any(keyword in schema for keyword in keywords)
            )
            if not types:
                return ANY
        if "number" in types:
            types -= {"integer"}
        return alt(*(self._of_type(kind, schema, where) for kind in TYPES if kind in types))

    def _of_type(self, kind: str, schema: Mapping[str, Any], where: str) -> Expr:
        match kind:
            case "string":
                return string_expr(schema, where, self.builder)
            case "number":
                return number_expr(schema, where, self.builder)
            case "integer":
                return integer_expr(schema, where, self.builder)
            case "array":
                return array_expr(schema, where, self.builder, self._expr)
            case "object":
                return object_expr(schema, where, self.builder, self._expr, closed=self._closed)
        return Rule(kind)


_Follow: TypeAlias = Callable[[_Converter, Any, dict[str, Any], str], Expr]
# In this order: what a reference or allOf names may hold any of the others, an enum leaves the
# rest nothing to say.
_BEFORE_TYPES: dict[str, _Follow] = {
    "$ref": _Converter._reference,
    "allOf": _Converter._all_of,
    "enum": _Converter._enum,
    "const": _Converter._const,
    "anyOf": _Converter._any_of,
    "oneOf": _Converter._one_of,
}
