"""Grammars and vocabularies on which native xgrammar and ours must give the same masks.

A case is walked along a fixed choice of tokens, so that both sides take the same way; a mask is
kept as its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from py_engine.grammar import GrammarSpec
from py_engine.grammar.ebnf import regex_ebnf
from py_engine.grammar.json_schema import schema_ebnf
from py_engine.grammar.structural_tag import lowered_tag
from py_engine.tooling.steps import ROOT

FIXTURE = Path(__file__).with_name("fixtures") / "grammar_masks.json"
MODEL = ROOT / "web" / "models" / "Llama-Storyteller-7M-q4f16_1-MLC"
N_STEPS = 40

_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": -5, "maximum": 120},
        "score": {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5},
        "kind": {"enum": ["cat", "cow", "café", "cafeteria"]},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}},
        "day": {"type": "string", "format": "date"},
        "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["name", "kind"],
}
_TAG = {
    "type": "structural_tag",
    "format": {
        "type": "triggered_tags",
        "triggers": ["<tool_call>"],
        "tags": [
            {
                "begin": "<tool_call>\n",
                "content": {"type": "json_schema", "json_schema": _SCHEMA},
                "end": "\n</tool_call>",
            }
        ],
    },
}
SPECS = (
    GrammarSpec("json"),
    GrammarSpec("json_schema", json.dumps(_SCHEMA)),
    GrammarSpec("json_schema", json.dumps(_SCHEMA), strict=False),
    GrammarSpec("json_schema", "{}"),
    GrammarSpec("ebnf", 'root ::= ("yes" | "no") tail*\ntail ::= [!?] | " " [a-z]{1,8}'),
    GrammarSpec("regex", r"(\d{3}-)?[A-Z][a-zé]+( [^\s\d]{2,5})*\."),
    GrammarSpec("structural_tag", json.dumps(_TAG)),
)


def for_library(spec: GrammarSpec) -> tuple[str, str]:
    """Return the kind and text that xgrammar gets."""
    if spec.kind == "json_schema":
        return "ebnf", schema_ebnf(spec.text, strict=spec.strict)
    if spec.kind == "regex":
        return "ebnf", regex_ebnf(spec.text)
    if spec.kind == "structural_tag":
        return spec.kind, lowered_tag(spec.text, strict=spec.strict)
    return spec.kind, spec.text


@cache
def vocabularies() -> dict[str, dict[str, Any]]:
    """Return vocabularies by name: tokens, kind, size of the logits, stop ids."""
    stored = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    special = {each["id"] for each in stored["added_tokens"] if each["special"]}
    ids = {**stored["model"]["vocab"], **{e["content"]: e["id"] for e in stored["added_tokens"]}}
    tokens = [""] * (max(ids.values()) + 1)
    for token, token_id in ids.items():
        tokens[token_id] = "" if token_id in special else token
    plain = [
        "",
        *map(chr, range(32, 127)),
        "\n",
        "é",
        "▁the",
        "▁",
        "<0xC3>",
        "<0xA9>",
        '"}',
        "café",
    ]
    return {
        "byte_level": {"tokens": tokens, "size": 4096, "stop": [min(special)]},
        "byte_fallback": {"tokens": plain, "size": 120, "stop": [0]},
        "raw": {"tokens": plain, "size": len(plain), "stop": [0]},
    }


def next_token(mask: bytes, size: int, stop: Sequence[int], step: int) -> int | None:
    """Return the token to go on with, of those allowed by a number that looks random."""
    bits = int.from_bytes(mask, "little") & (1 << size) - 1
    allowed = [index for index in range(size) if bits >> index & 1 and index not in stop]
    return allowed[step * 7919 % len(allowed)] if allowed else None


def digest(mask: bytes, size: int) -> str:
    """Return a short hash of the bits of a mask that stand for tokens."""
    bits = int.from_bytes(mask, "little") & (1 << size) - 1
    return hashlib.sha256(bits.to_bytes(-(-size // 8), "little")).hexdigest()[:8]
