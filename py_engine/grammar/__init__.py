"""Grammars a reply must follow: compiled for a vocabulary, they say which tokens may come next.

The compiler in the browser is npm's `@mlc-ai/web-xgrammar` (`backend_browser`). Tests bring others.
"""

from __future__ import annotations

from typing import Any, Protocol

from py_engine.grammar.spec import GrammarKind, GrammarSpec

__all__ = ["Grammar", "GrammarCompiler", "GrammarKind", "GrammarMatcher", "GrammarSpec"]


class GrammarCompiler(Protocol):
    """Compiles grammars for the vocabulary of one model."""

    async def compile(self, spec: GrammarSpec) -> Grammar:
        """Return the grammar of `spec`, from a small cache where it was compiled before.

        Errors: the RequestError classes InvalidResponseFormatError (schemas),
        InvalidResponseFormatGrammarError (EBNF and regular expressions),
        InvalidResponseFormatStructuralTagError, and GrammarMatcherInitError for a grammar that
        reads well but cannot be compiled. After each the compiler goes on working.
        """
        ...

    def destroy(self) -> None:
        """Free the vocabulary and all grammars; open matchers cannot be used afterwards."""
        ...


class Grammar(Protocol):
    """A compiled grammar."""

    async def matcher(self) -> GrammarMatcher:
        """Return a new matcher at the start of the grammar."""
        ...


class GrammarMatcher(Protocol):
    """Follows one reply through its grammar, token by token."""

    async def mask(self) -> Any:
        """Return which tokens may come next, as host bytes for `TextModel.draw`.

        They hold ceil(vocab_size / 32) words; bit i % 32 of word i // 32 is set where token i is
        allowed, stop tokens where the reply may end.
        """
        ...

    def accept(self, token_id: int) -> None:
        """Go on by one token. Errors: GrammarMatcherError if the grammar forbids it."""
        ...

    @property
    def is_terminated(self) -> bool:
        """Whether a stop token was accepted, after which nothing may come."""
        ...

    def close(self) -> None:
        """Free the matcher; it cannot be used afterwards."""
        ...
