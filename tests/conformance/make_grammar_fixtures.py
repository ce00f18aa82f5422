"""Writes `fixtures/grammar_masks.json`: python -m tests.conformance.make_grammar_fixtures

Needs xgrammar 0.1.27 and torch (`pip install --target ... --no-deps xgrammar==0.1.27`).
"""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.grammar_cases import (
    FIXTURE,
    N_STEPS,
    SPECS,
    digest,
    for_library,
    next_token,
    vocabularies,
)


def native_walks() -> list[dict[str, Any]]:
    """Walk every grammar over every vocabulary with native xgrammar."""
    import xgrammar

    found = []
    for kind, vocabulary in vocabularies().items():
        info = xgrammar.TokenizerInfo(
            vocabulary["tokens"],
            xgrammar.VocabType[kind.upper()],
            vocab_size=vocabulary["size"],
            stop_token_ids=vocabulary["stop"],
        )
        compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        for index in range(len(SPECS)):
            walk = _walk(xgrammar, compiler, *for_library(SPECS[index]), vocabulary)
            found.append({"vocabulary": kind, "spec": index, **walk})
    return found


def _walk(
    xgrammar: Any, compiler: Any, kind: str, text: str, vocabulary: dict[str, Any]
) -> dict[str, Any]:
    if kind == "json":
        grammar = compiler.compile_builtin_json_grammar()
    elif kind == "ebnf":
        grammar = compiler.compile_grammar(xgrammar.Grammar.from_ebnf(text))
    else:
        grammar = compiler.compile_grammar(xgrammar.Grammar.from_structural_tag(text))
    matcher = xgrammar.GrammarMatcher(grammar)
    bitmask = xgrammar.allocate_token_bitmask(1, vocabulary["size"])
    ids: list[int] = []
    hashes: list[str] = []
    for step in range(N_STEPS):
        matcher.fill_next_token_bitmask(bitmask)
        mask = bitmask.numpy().tobytes()
        hashes.append(digest(mask, vocabulary["size"]))
        token_id = next_token(mask, vocabulary["size"], vocabulary["stop"], step)
        if token_id is None:
            break
        assert matcher.accept_token(token_id)
        ids.append(token_id)
    return {"ids": ids, "masks": hashes}


def main() -> None:
    """Write the walks."""
    lines = ",\n".join(map(json.dumps, native_walks()))
    FIXTURE.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
