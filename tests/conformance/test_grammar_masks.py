"""Masks in the browser equal native xgrammar 0.1.27's, bit for bit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.grammar_cases import FIXTURE, SPECS, digest, vocabularies
from tests.support.engine_worker import EngineWorker


async def masks_along(
    vocabulary: dict[str, Any], kind: str, walks: list[list[Any]]
) -> list[list[bytes]]:
    """Return the masks before each token of [kind, text, strict, ids], and after the last."""
    from py_engine.grammar import GrammarSpec
    from py_engine.grammar.backend_browser import BrowserGrammarCompiler
    from py_engine.grammar.vocabulary import Vocabulary

    stop = frozenset(vocabulary["stop"])
    tokens = Vocabulary(vocabulary["tokens"], kind, False, vocabulary["size"], stop)
    compiler = BrowserGrammarCompiler(tokens)
    found = []
    for spec_kind, text, strict, ids in walks:
        matcher = await (await compiler.compile(GrammarSpec(spec_kind, text, strict))).matcher()
        masks = [(await matcher.mask()).to_bytes()]
        for token_id in ids:
            matcher.accept(token_id)
            masks.append((await matcher.mask()).to_bytes())
        matcher.close()
        found.append(masks)
    compiler.destroy()
    return found


@pytest.mark.parametrize("kind", vocabularies())
def test_masks_equal_native_ones(engine_worker: EngineWorker, kind: str) -> None:
    stored = [each for each in json.loads(FIXTURE.read_text()) if each["vocabulary"] == kind]
    assert [each["spec"] for each in stored] == list(range(len(SPECS)))
    vocabulary = vocabularies()[kind]
    walks = [
        [spec.kind, spec.text, spec.strict, each["ids"]]
        for spec, each in zip(SPECS, stored, strict=True)
    ]
    found = engine_worker.run(masks_along, vocabulary=vocabulary, kind=kind, walks=walks)
    for each, masks in zip(stored, found, strict=True):
        hashes = [digest(mask, vocabulary["size"]) for mask in masks]
        assert hashes[: len(each["masks"])] == each["masks"], SPECS[each["spec"]]


def test_fixture_is_what_native_xgrammar_gives() -> None:
    pytest.importorskip("xgrammar", reason="the live oracle needs xgrammar 0.1.27")
    from tests.conformance.make_grammar_fixtures import native_walks

    assert native_walks() == json.loads(FIXTURE.read_text())
