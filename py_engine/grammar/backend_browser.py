"""Grammars compiled by npm's `@mlc-ai/web-xgrammar` 0.1.27 (wasm, in the browser).

The library is built without exceptions: what it refuses ends its wasm instance in the middle of a
call, with the reason on its console. An instance keeps what such a call had on its stack, so that
after some forty of them, or one that ran out of stack, it answers wrongly. So an instance in which
anything failed is not used again, and a new one gets the vocabulary at the next grammar. Grammars
compiled before stay with the old one.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pywebllm_worker
from pyodide.ffi import JsException, JsProxy, to_js

from py_engine.errors import (
    GrammarMatcherError,
    GrammarMatcherInitError,
    InvalidResponseFormatGrammarError,
    InvalidResponseFormatStructuralTagError,
)
from py_engine.grammar.ebnf import check_ebnf, regex_ebnf
from py_engine.grammar.json_schema import schema_ebnf
from py_engine.grammar.spec import GrammarSpec
from py_engine.grammar.structural_tag import lowered_tag
from py_engine.grammar.vocabulary import Vocabulary

CACHED_GRAMMARS = 16
_SOURCE_LINE = re.compile(r"^\[\w+\] \S+:\d+: (?:Check failed: \(.*?\) is false: )?")


class XGrammar:
    """One instance of the library with a model's vocabulary in it."""

    def __init__(self, instance: Any, vocabulary: Any, compiler: Any) -> None:
        self.library = instance.library
        self._errors = instance.errors
        self._compile = instance.compile
        self._vocabulary = vocabulary
        self._compiler = compiler

    @classmethod
    async def open(cls, vocabulary: Vocabulary) -> XGrammar:
        """Make an instance and hand the vocabulary over."""
        instance = await pywebllm_worker.makeXGrammar()
        info = await instance.library.TokenizerInfo.createTokenizerInfo(
            to_js(vocabulary.tokens),
            vocabulary.kind,
            vocabulary.prepends_space,
            vocabulary.size,
            to_js(sorted(vocabulary.stop_token_ids)),
        )
        # Without the library's cache: it waits for ever for a grammar that failed before.
        compiler = await instance.library.GrammarCompiler.createGrammarCompiler(info, False)
        return cls(instance, info, compiler)

    async def compile(self, kind: str, text: str) -> Any:
        """Return a compiled grammar. Errors: JsException, after which this is not to be used."""
        return await self._compile(self._compiler, kind, text)

    def take_reason(self) -> str:
        """Return what the library said since it was last asked, without its source lines."""
        lines = [_SOURCE_LINE.sub("", str(line)).strip() for line in self._errors]
        self._errors.length = 0
        return "; ".join(line for line in lines if line and not line.startswith("Aborted("))

    def close(self) -> None:
        """Free the vocabulary."""
        self._compiler.dispose()
        self._vocabulary.dispose()


class BrowserGrammarCompiler:
    """Implements `GrammarCompiler`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._instance: XGrammar | None = None
        self._grammars: OrderedDict[GrammarSpec, BrowserGrammar] = OrderedDict()

    async def compile(self, spec: GrammarSpec) -> BrowserGrammar:
        """Return the grammar of `spec`, compiled or out of the cache."""
        grammar = self._grammars.get(spec)
        if grammar is None:
            grammar = BrowserGrammar(*await self._compiled(spec))
            self._grammars[spec] = grammar
            if len(self._grammars) > CACHED_GRAMMARS:
                self._grammars.popitem(last=False)[1].release()
        self._grammars.move_to_end(spec)
        return grammar

    def destroy(self) -> None:
        """Free the vocabulary and all grammars."""
        for grammar in self._grammars.values():
            grammar.release()
        self._grammars.clear()
        if self._instance is not None:
            self._instance.close()
            self._instance = None

    async def _compiled(self, spec: GrammarSpec) -> tuple[XGrammar, Any]:
        kind, text = _for_library(spec)
        if self._instance is None:
            self._instance = await XGrammar.open(self._vocabulary)
        instance = self._instance
        try:
            return instance, await instance.compile(kind, text)
        except JsException as error:
            self._instance = None
            raise _error(spec, instance.take_reason(), error) from error


class BrowserGrammar:
    """A compiled grammar. Implements `Grammar`."""

    def __init__(self, instance: XGrammar, handle: Any) -> None:
        self._instance = instance
        self._handle = handle
        self._users = 1

    async def matcher(self) -> BrowserMatcher:
        """Return a new matcher at the start of the grammar."""
        create = self._instance.library.GrammarMatcher.createGrammarMatcher
        self._users += 1
        return BrowserMatcher(await create(self._handle), self.release)

    def release(self) -> None:
        """Let go of the grammar; the last of the cache and the matchers frees it."""
        self._users -= 1
        if self._users == 0:
            self._handle.dispose()


class BrowserMatcher:
    """Implements `GrammarMatcher`."""

    def __init__(self, handle: Any, on_close: Callable[[], None]) -> None:
        self._handle = handle
        self._on_close = on_close

    async def mask(self) -> JsProxy:
        """Return the allowed tokens as a fresh ArrayBuffer."""
        words = await self._handle.getNextTokenBitmask()
        buffer: JsProxy = words.buffer
        return buffer

    def accept(self, token_id: int) -> None:
        """Go on by one token. Errors: GrammarMatcherError."""
        if not self._handle.acceptToken(token_id):
            raise GrammarMatcherError(
                f"token {token_id} was drawn, but the grammar of the reply forbids it here. A "
                "logit processor may have raised a forbidden token."
            )

    @property
    def is_terminated(self) -> bool:
        """Whether a stop token was accepted."""
        return bool(self._handle.isTerminated())

    def close(self) -> None:
        """Free the matcher."""
        self._handle.dispose()
        self._on_close()


def _for_library(spec: GrammarSpec) -> tuple[str, str]:
    """Return the kind and the text of a grammar in the library's terms."""
    match spec.kind:
        case "json_schema":
            return "ebnf", schema_ebnf(spec.text, strict=spec.strict)
        case "regex":
            return "ebnf", regex_ebnf(spec.text)
        case "structural_tag":
            return spec.kind, lowered_tag(spec.text, strict=spec.strict)
        case "ebnf":
            check_ebnf(spec.text, "grammar")
    return spec.kind, spec.text


def _error(spec: GrammarSpec, reason: str, error: JsException) -> Exception:
    why = reason or f"xgrammar gives no reason ({error})"
    if spec.kind == "ebnf":
        return InvalidResponseFormatGrammarError(
            f"the grammar cannot be compiled: {why}. Correct it; its first rule to match is 'root'."
        )
    if spec.kind == "structural_tag":
        return InvalidResponseFormatStructuralTagError(
            f"the structural tag cannot be compiled: {why}. Only the last part of a sequence can "
            "be without a limit, and a tag around such a part needs an end."
        )
    return GrammarMatcherInitError(
        f"the grammar of this {spec.kind} cannot be compiled: {why}. Simplify it."
    )
