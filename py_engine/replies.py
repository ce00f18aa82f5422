"""The replies to one request: each a generation with the request's settings and its own seed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from py_engine.api.sampling import SamplingFields, check_token_ids
from py_engine.api.usage import usage
from py_engine.config import ChatConfig
from py_engine.generation import (
    Generation,
    GenerationParams,
    Latencies,
    Piece,
    Seat,
    Statistics,
)
from py_engine.grammar import Grammar, GrammarSpec
from py_engine.loaded_model import LoadedModel, new_seed
from py_engine.models.base import SamplingParams


class Replies:
    """Generates the replies to one request and adds up what they take.

    `began` is the time (perf_counter, seconds) from which the request's latency counts.
    """

    def __init__(self, model: LoadedModel, fields: SamplingFields, began: float) -> None:
        """Raise RangeError for a token id of `logit_bias` that the model does not have."""
        check_token_ids(fields.logit_bias, model.vocab_size, "request: logit_bias")
        self.model = model
        self.fields = fields
        self._began = began
        self._prediction = model.tokenizer.encode(fields.prediction) if fields.prediction else []
        self._seed = new_seed() if fields.seed is None else fields.seed
        self._grammar: Grammar | None = None
        self._grammar_init_s = 0.0
        self._prompt_tokens = self._cached_tokens = 0
        self._statistics = Statistics()
        self._latencies = Latencies()

    async def prepare(self, spec: GrammarSpec | None) -> None:
        """Bind the replies to a grammar, and load what a logit processor needs.

        Errors: those of `GrammarCompiler.compile`.
        """
        await self.model.load_libraries()
        if spec is None:
            return
        began = time.perf_counter()
        self._grammar = await self.model.grammars.compile(spec)
        self._grammar_init_s = time.perf_counter() - began

    def generation(
        self,
        prompt: Sequence[int],
        index: int,
        *,
        kept_special_ids: frozenset[int] = frozenset(),
        grammar_after: str = "",
    ) -> Generation:
        """Return the reply for choice `index`. Errors: ContextWindowSizeExceededError."""
        return self.model.generation(prompt, self._params(index, kept_special_ids, grammar_after))

    def _params(
        self, index: int, kept_special_ids: frozenset[int], grammar_after: str
    ) -> GenerationParams:
        model, fields = self.model, self.fields
        renderer = model.renderer
        return GenerationParams(
            sampling_params(model.config, fields, self._seed + index),
            fields.max_tokens,
            frozenset() if fields.ignore_eos else renderer.stop_token_ids,
            (*renderer.stop_strings, *fields.stop),
            kept_special_ids,
            self._grammar,
            grammar_after,
            model.logit_processor,
            is_reproducible=fields.seed is not None,
            draft_tokens=fields.draft_tokens,
            prediction=self._prediction,
        )

    async def run(
        self, generation: Generation, seat: Seat, *, is_first_of_prompt: bool = True
    ) -> AsyncGenerator[Piece, None]:
        """Run a reply in the request's seat; yields its pieces and counts what it took.

        A prompt counts once, as OpenAI counts it, however many choices it has.
        """
        if is_first_of_prompt:
            self._prompt_tokens += generation.prompt_tokens
        try:
            async with aclosing(self.model.run(generation, seat)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._statistics.add(generation.statistics)
            self._latencies = generation.latencies
            if is_first_of_prompt:
                self._cached_tokens += generation.statistics.cached_tokens

    def usage(self, reasoning_tokens: int | None = None) -> dict[str, Any]:
        """Return OpenAI's `usage` of all replies so far, with WebLLM's `extra`."""
        return usage(
            self._statistics,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            reasoning_tokens=reasoning_tokens,
            e2e_latency_s=time.perf_counter() - self._began,
            grammar_init_s=self._grammar_init_s if self._grammar is not None else None,
            latencies=self._latencies if self.fields.enable_latency_breakdown else None,
        )


def sampling_params(config: ChatConfig, fields: SamplingFields, seed: int) -> SamplingParams:
    """Return how to draw: as requested, else as the model's configuration has it."""
    settings = {
        name: getattr(fields, name) if getattr(fields, name) is not None else getattr(config, name)
        for name in (
            "temperature",
            "top_p",
            "presence_penalty",
            "frequency_penalty",
            "repetition_penalty",
        )
    }
    return SamplingParams(
        **settings,
        seed=seed,
        top_k=fields.top_k or 0,
        min_p=fields.min_p or 0.0,
        logit_bias=fields.logit_bias,
        top_logprobs=fields.top_logprobs,
    )
