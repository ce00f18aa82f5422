"""Generation under control: grammars, logit processors, log-probabilities, kept prefixes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from py_engine.errors import GrammarMatcherError, LogitProcessorError
from py_engine.generation import Generation, GenerationParams, Piece
from py_engine.generation.cached_tokens import CachedTokens
from py_engine.grammar import GrammarSpec
from py_engine.models.base import SamplingParams
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from tests.support.fake_grammar import FakeGrammarCompiler
from tests.support.fake_model import FakeModel
from tests.support.tokenizer_files import tokenizer_json

PROMPT = [10, 11, 12, 13, 14]
END = 500


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return asyncio.run(tokenizer_from_json(tokenizer_json("gpt2")))


@pytest.fixture
def compiler(tokenizer: Tokenizer) -> FakeGrammarCompiler:
    tokens = [tokenizer.decode([index], skip_special_tokens=True) for index in range(END + 1)]
    return FakeGrammarCompiler(tokens, 504, {END})


def generation_of(
    tokenizer: Tokenizer,
    model: FakeModel,
    cached: CachedTokens | None = None,
    prompt: list[int] = PROMPT,
    sampling: SamplingParams | None = None,
    **params: Any,
) -> Generation:
    settings = GenerationParams(
        sampling or SamplingParams(0.5), stop_token_ids=frozenset({END}), **params
    )
    return Generation(model, tokenizer, prompt, settings, cached)


async def read(generation: Generation) -> list[Piece]:
    return [piece async for piece in generation.pieces()]


# Grammars


def test_grammar_binds_every_token(tokenizer: Tokenizer, compiler: FakeGrammarCompiler) -> None:
    async def main() -> None:
        grammar = await compiler.compile(GrammarSpec("regex", "(yes|no)!"))
        model = FakeModel(tokenizer.encode("The quick brown fox"))
        generation = generation_of(tokenizer, model, grammar=grammar)
        await read(generation)
        assert generation.text in ("yes!", "no!")
        assert generation.finish_reason == "stop"
        assert generation.statistics.grammar_per_token_s > 0
        assert None not in model.masks
        assert compiler.open_matchers == 0

    asyncio.run(main())


def test_forward_pass_is_enqueued_before_the_draw_is_read(
    tokenizer: Tokenizer, compiler: FakeGrammarCompiler
) -> None:
    """The GPU must be busy while the mask is made: that is when the last token is in already."""

    async def main() -> None:
        model = FakeModel(tokenizer.encode("aaaa"))
        lengths: list[int] = []
        compiler.on_mask = lambda: lengths.append(len(model.sequence))
        grammar = await compiler.compile(GrammarSpec("regex", "a{3}"))
        await read(generation_of(tokenizer, model, grammar=grammar))
        assert lengths == [len(PROMPT) + drawn for drawn in range(len(lengths))]
        assert len(lengths) > 1

    asyncio.run(main())


def test_grammar_waits_for_the_end_of_the_reasoning(
    tokenizer: Tokenizer, compiler: FakeGrammarCompiler
) -> None:
    async def main() -> None:
        grammar = await compiler.compile(GrammarSpec("regex", "yes"))
        model = FakeModel(tokenizer.encode("so it is</think>no"), context_window_size=200)
        generation = generation_of(tokenizer, model, grammar=grammar, grammar_after="</think>")
        await read(generation)
        assert generation.text == "so it is</think>yes"
        assert generation.finish_reason == "stop"

    asyncio.run(main())


def test_max_tokens_and_interruption_end_a_grammar(
    tokenizer: Tokenizer, compiler: FakeGrammarCompiler
) -> None:
    async def main() -> None:
        grammar = await compiler.compile(GrammarSpec("json"))
        cut = generation_of(tokenizer, FakeModel(), grammar=grammar, max_tokens=1)
        await read(cut)
        assert (cut.finish_reason, cut.statistics.completion_tokens) == ("length", 1)
        model = FakeModel()
        stopped = generation_of(tokenizer, model, grammar=grammar)
        model.on_step = lambda number: stopped.interrupt() if number == 2 else None
        await read(stopped)
        assert stopped.finish_reason == "abort"
        assert compiler.open_matchers == 0
        assert model.in_flight == 0

    asyncio.run(main())


def test_token_against_the_grammar_fails_the_reply(
    tokenizer: Tokenizer, compiler: FakeGrammarCompiler
) -> None:
    class Disobedient(FakeModel):
        def _choose(self, number: int, mask: Any) -> int:
            return 0

    async def main() -> None:
        grammar = await compiler.compile(GrammarSpec("regex", "yes"))
        with pytest.raises(GrammarMatcherError):
            await read(generation_of(tokenizer, Disobedient(), grammar=grammar))
        assert compiler.open_matchers == 0

    asyncio.run(main())


# Logit processors


class Preferring:
    """Makes the tokens of a text the likeliest ones, one after another, then the end."""

    def __init__(self, token_ids: list[int]) -> None:
        self.wanted = [*token_ids, END]
        self.learnt: list[int] = []
        self.resets = 0

    def process_logits(self, logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        assert logits.dtype == np.float32
        logits[self.wanted[len(self.learnt)]] = 9
        return logits

    def process_sampled_token(self, token_id: int) -> None:
        self.learnt.append(token_id)

    def reset_state(self) -> None:
        self.resets += 1
        self.learnt = []


def test_processor_changes_logits_and_learns_tokens(tokenizer: Tokenizer) -> None:
    processor = Preferring(tokenizer.encode("The quick brown fox"))
    for repetition in (1, 2):
        generation = generation_of(tokenizer, FakeModel(), logit_processor=processor)
        asyncio.run(read(generation))
        assert generation.text == "The quick brown fox"
        assert processor.learnt == processor.wanted
        assert processor.resets == repetition


def test_grammar_binds_a_processor(tokenizer: Tokenizer, compiler: FakeGrammarCompiler) -> None:
    async def main() -> None:
        grammar = await compiler.compile(GrammarSpec("regex", "fox"))
        processor = Preferring(tokenizer.encode("fox")[:1] + [40] * 20)
        generation = generation_of(
            tokenizer, FakeModel(), logit_processor=processor, grammar=grammar
        )
        await read(generation)
        assert generation.text == "fox"

    asyncio.run(main())


class Failing(Preferring):
    def __init__(self, where: str) -> None:
        super().__init__([])
        self.where = where

    def process_logits(self, logits: np.ndarray[Any, Any]) -> Any:
        wrong = {
            "raises": lambda: logits[10**6],
            "shape": lambda: logits[:-1],
            "type": lambda: ["a"],
            "nothing": lambda: None,
            "nan": lambda: logits * np.nan,
            "infinity": lambda: logits + np.inf,
        }
        return wrong.get(self.where, lambda: logits)()

    def process_sampled_token(self, token_id: int) -> None:
        assert self.where != "sampled", "my own mistake"

    def reset_state(self) -> None:
        assert self.where != "reset", "my own mistake"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("raises", r"failed in process_logits.*(?s:.*)Traceback.*(?s:.*)test_generation_control"),
        ("shape", r"shape \(503,\), but must return \(504,\)"),
        ("type", "returned list"),
        ("nothing", r"shape|NoneType"),
        ("nan", "NaN or infinity"),
        ("infinity", "NaN or infinity"),
        ("sampled", r"process_sampled_token.*my own mistake"),
        ("reset", r"reset_state.*my own mistake"),
    ],
)
def test_processor_that_fails_fails_its_reply_only(
    tokenizer: Tokenizer, where: str, message: str
) -> None:
    async def main() -> None:
        model = FakeModel(tokenizer.encode("fox"))
        with pytest.raises(LogitProcessorError, match=message):
            await read(generation_of(tokenizer, model, logit_processor=Failing(where)))
        after = generation_of(tokenizer, model, max_tokens=1)
        await read(after)
        assert after.statistics.completion_tokens == 1

    asyncio.run(main())


def test_minus_infinity_forbids_a_token(tokenizer: Tokenizer) -> None:
    class Forbidding(Preferring):
        def process_logits(self, logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            logits[:] = -np.inf
            logits[END] = 0
            return logits

    generation = generation_of(tokenizer, FakeModel(), logit_processor=Forbidding([]))
    asyncio.run(read(generation))
    assert (generation.text, generation.finish_reason) == ("", "stop")


# Log-probabilities


@pytest.mark.parametrize("top", [0, 3])
def test_logprobs_come_with_the_text_of_their_tokens(tokenizer: Tokenizer, top: int) -> None:
    text = "The quick 🙂 fox"
    model = FakeModel([*tokenizer.encode(text), END])
    sampling = SamplingParams(top_logprobs=top)
    pieces = asyncio.run(read(generation_of(tokenizer, model, sampling=sampling)))
    entries = [entry for piece in pieces for entry in piece.logprobs]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == text
    assert {entry["logprob"] for entry in entries} == {-0.25}
    assert {len(entry["top_logprobs"]) for entry in entries} == {top}
    shown, covered = "", b""
    for piece in pieces:
        shown += piece.text
        covered += b"".join(bytes(entry["bytes"]) for entry in piece.logprobs)
        assert covered.startswith(shown.encode())
    json.dumps(entries)


def test_logprobs_of_a_stop_string_are_not_shown(tokenizer: Tokenizer) -> None:
    model = FakeModel([*tokenizer.encode("The quick brown fox jumps"), END])
    generation = generation_of(
        tokenizer, model, sampling=SamplingParams(top_logprobs=0), stop_strings=(" fox",)
    )
    entries = [e for piece in asyncio.run(read(generation)) for e in piece.logprobs]
    assert generation.text == "The quick brown"
    assert "".join(entry["token"] for entry in entries) == "The quick brown"


def test_logprobs_of_half_a_character_come_with_the_end(tokenizer: Tokenizer) -> None:
    model = FakeModel(tokenizer.encode("a🙂"))
    generation = generation_of(
        tokenizer, model, sampling=SamplingParams(top_logprobs=1), max_tokens=2
    )
    entries = [e for piece in asyncio.run(read(generation)) for e in piece.logprobs]
    assert generation.text == "a\ufffd"
    assert len(entries) == 2


# The KV cache


def run_twice(
    tokenizer: Tokenizer, model: FakeModel, first: list[int], second: list[int], **params: Any
) -> tuple[Generation, Generation]:
    cached = CachedTokens()
    generations = [
        generation_of(tokenizer, model, cached, prompt, **params) for prompt in (first, second)
    ]
    for generation in generations:
        asyncio.run(read(generation))
        # what is noted must be there; the model may hold more
        assert model.sequence[: len(cached)] == cached._ids
    return generations[0], generations[1]


def test_next_turn_prefills_only_what_is_new(tokenizer: Tokenizer) -> None:
    reply = tokenizer.encode("The quick brown")
    model = FakeModel([*reply, END])
    _, second = run_twice(tokenizer, model, PROMPT, [*PROMPT, *reply, 7, 8])
    assert model.chunks == [[7, 8]]
    assert second.statistics.cached_tokens == len(PROMPT) + len(reply)
    assert second.statistics.prefilled_tokens == 2


def test_token_past_the_stop_is_known_too(tokenizer: Tokenizer) -> None:
    """The stop token was fed to a step that was in flight when it was read."""
    reply = tokenizer.encode("The quick brown")
    model = FakeModel([*reply, END])
    run_twice(tokenizer, model, PROMPT, [*PROMPT, *reply, END, 7])
    assert model.chunks == [[7]]


@pytest.mark.parametrize("grammar", [False, True])
def test_same_prompt_again_prefills_its_last_token_only(
    tokenizer: Tokenizer, compiler: FakeGrammarCompiler, grammar: bool
) -> None:
    model = FakeModel([*tokenizer.encode("yes"), END])
    params: dict[str, Any] = {}
    if grammar:
        params["grammar"] = asyncio.run(compiler.compile(GrammarSpec("regex", "yes")))
    first, second = run_twice(tokenizer, model, PROMPT, PROMPT, **params)
    assert model.chunks == [PROMPT[-1:]]
    assert first.text == second.text == "yes"


def test_edited_prompt_keeps_what_is_before_the_edit(tokenizer: Tokenizer) -> None:
    model = FakeModel([END])
    run_twice(tokenizer, model, PROMPT, [*PROMPT[:2], 99, *PROMPT[3:]])
    assert model.kept == [0, 2]
    assert model.chunks == [[99, *PROMPT[3:]]]


def test_shorter_prompt_and_unrelated_prompt(tokenizer: Tokenizer) -> None:
    model = FakeModel([END])
    run_twice(tokenizer, model, PROMPT, PROMPT[:3])
    run_twice(tokenizer, model, PROMPT, [7, 8])
    assert model.kept == [0, 2, 0, 0]


def test_model_may_keep_less(tokenizer: Tokenizer) -> None:
    model = FakeModel([END])
    model.reusable_tokens = lambda n_tokens: min(n_tokens, 1)  # type: ignore[method-assign]
    run_twice(tokenizer, model, PROMPT, PROMPT)
    assert model.chunks == [PROMPT[1:]]


def test_reproducible_reply_keeps_only_what_a_prefill_computed(tokenizer: Tokenizer) -> None:
    reply = tokenizer.encode("The quick brown")
    model = FakeModel([*reply, END])
    cached, longer = CachedTokens(), [*PROMPT, *reply, 7]
    for prompt in (PROMPT, longer, longer):
        asyncio.run(read(generation_of(tokenizer, model, cached, prompt, is_reproducible=True)))
    assert model.kept == [0, len(PROMPT), len(longer) - 1]


def test_interrupted_prefill_keeps_its_chunks(tokenizer: Tokenizer) -> None:
    model = FakeModel([END], context_window_size=100)
    cached, prompt = CachedTokens(), list(range(40))
    generation = generation_of(tokenizer, model, cached, prompt)
    model.on_prefill = lambda number: generation.interrupt() if number == 2 else None
    asyncio.run(read(generation))
    assert (generation.finish_reason, len(cached)) == ("abort", 32)


@pytest.mark.parametrize("controlled", [False, True])
def test_failed_read_keeps_the_tokens_before_it(
    tokenizer: Tokenizer, compiler: FakeGrammarCompiler, controlled: bool
) -> None:
    async def main() -> None:
        grammar = await compiler.compile(GrammarSpec("regex", "[a-z ]*"))
        script = tokenizer.encode("a b c d e")
        model = FakeModel(script)
        model.fail_at = {2: RuntimeError("a read that failed")}
        cached = CachedTokens()
        params = {"grammar": grammar} if controlled else {}
        with pytest.raises(RuntimeError):
            await read(generation_of(tokenizer, model, cached, **params))
        assert cached._ids == [*PROMPT, *script[:2]]
        assert model.sequence[: len(cached)] == cached._ids
        model.fail_at = {}
        await read(generation_of(tokenizer, model, cached, [*PROMPT, *script[:2], 9]))
        assert model.chunks == [[9]]

    asyncio.run(main())
