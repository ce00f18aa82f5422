"""The grammars of one loaded model: its compiler, opened when it is first needed."""

from __future__ import annotations

import asyncio

from py_engine.errors import ModelNotLoadedError, ResponseFormatViolationError
from py_engine.grammar import Grammar, GrammarCompiler, GrammarSpec
from py_engine.host import EngineHost
from py_engine.tokenizer import Tokenizer


class ModelGrammars:
    """Compiles the grammars of requests to one model, and checks replies against schemas."""

    def __init__(
        self,
        host: EngineHost,
        tokenizer: Tokenizer,
        vocab_size: int,
        stop_token_ids: frozenset[int],
    ) -> None:
        self._host = host
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._stop_token_ids = stop_token_ids
        self._compiler: GrammarCompiler | None = None
        self._opening = asyncio.Lock()
        self._is_destroyed = False

    async def compile(self, spec: GrammarSpec) -> Grammar:
        """Return the grammar of `spec`.

        Errors: those of `GrammarCompiler.compile`; ModelNotLoadedError after `destroy`.
        """
        async with self._opening:
            if self._compiler is None:
                self._compiler = await self._host.open_grammar_compiler(
                    self._tokenizer, self._vocab_size, self._stop_token_ids
                )
                if self._is_destroyed:
                    self._compiler.destroy()
        if self._is_destroyed:
            raise ModelNotLoadedError("The model was unloaded during the request; load it again.")
        return await self._compiler.compile(spec)

    async def require_valid(self, schema: str, text: str) -> None:
        """Raise ResponseFormatViolationError unless `text` is an instance of the JSON Schema."""
        violations = await self._host.validate_json(schema, text)
        if violations:
            error = ResponseFormatViolationError(
                f"The reply follows the schema's grammar but not all of its rules: "
                f"{'; '.join(violations)}. Ask again, with another seed, or simplify the schema; "
                "the error's `content` is the reply."
            )
            error.content = text
            raise error

    def destroy(self) -> None:
        """Free the compiler."""
        self._is_destroyed = True
        if self._compiler is not None:
            self._compiler.destroy()
