"""MLCEngine's chat completions: formats, tools, reasoning, choices, log-probabilities, usage."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from py_engine.engine import MLCEngine
from py_engine.errors import (
    ContextWindowSizeExceededError,
    IncorrectPipelineLoadedError,
    InvalidResponseFormatError,
    LogitProcessorError,
    RangeError,
    ResponseFormatViolationError,
    UnsupportedToolsError,
)
from py_engine.tokenizer import tokenizer_from_json
from tests.support.engines import CALL, MESSAGES, TOOLS, ask, engine_that_says, ids_of
from tests.support.fake_host import FakeHost, model_files
from tests.support.tokenizer_files import tokenizer_json


async def streamed(engine: MLCEngine, **fields: Any) -> tuple[dict[int, dict[str, Any]], list[Any]]:
    """Return the messages that a stream's deltas make by choice, with `finish_reason`; its chunks.

    Put together here by OpenAI's rules, independently of the engine.
    """
    chunks = [chunk.to_dict() async for chunk in await ask(engine, stream=True, **fields)]
    messages: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            message = messages.setdefault(choice["index"], {"calls": {}})
            delta = choice["delta"]
            for name in ("role", "content", "reasoning_content"):
                if delta.get(name) is not None:
                    message[name] = message.get(name, "") + delta[name]
            for part in delta.get("tool_calls") or []:
                call = message["calls"].setdefault(part["index"], {"arguments": ""})
                call.update({k: part[k] for k in ("id", "type") if k in part})
                function = part["function"]
                call.update({"name": function["name"]} if "name" in function else {})
                call["arguments"] += function.get("arguments", "")
            message["finish_reason"] = choice["finish_reason"]
    return messages, chunks


# Formats


@pytest.mark.parametrize("stream", [False, True])
def test_response_format_binds_the_reply(stream: bool) -> None:
    async def test() -> None:
        engine = await engine_that_says("The quick brown fox")
        schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
        form = {"type": "json_object", "schema": json.dumps(schema)}
        if stream:
            messages, chunks = await streamed(
                engine, response_format=form, stream_options={"include_usage": True}
            )
            text, extra = messages[0]["content"], chunks[-1]["usage"]["extra"]
        else:
            response = await ask(engine, response_format=form)
            text, extra = response.choices[0].message.content, response.usage.extra.to_dict()
        assert json.loads(text)["a"] in (1, 2)
        assert extra["grammar_init_s"] >= 0
        assert extra["grammar_per_token_s"] > 0

    asyncio.run(test())


def test_grammar_is_compiled_once_and_the_compiler_freed() -> None:
    async def test() -> None:
        engine = await engine_that_says("yes")
        form = {"type": "regex", "pattern": "yes|no"}
        for _ in range(2):
            assert (await ask(engine, response_format=form)).choices[0].message.content == "yes"
        (compiler,) = engine.host.compilers
        assert len(compiler.compiled) == 1
        await engine.unload()
        assert compiler.is_destroyed
        assert compiler.open_matchers == 0

    asyncio.run(test())


def test_bad_grammar_fails_at_once_and_the_next_request_works() -> None:
    async def test() -> None:
        engine = await engine_that_says("yes")
        for stream in (False, True):
            with pytest.raises(InvalidResponseFormatError):
                await ask(
                    engine, stream=stream, response_format={"type": "grammar", "grammar": "x"}
                )
        assert (await ask(engine)).choices[0].message.content == "yes"

    asyncio.run(test())


@pytest.mark.parametrize("stream", [False, True])
def test_reply_is_checked_by_what_the_grammar_cannot_say(stream: bool) -> None:
    async def test() -> None:
        engine = await engine_that_says("1")
        host = engine.host
        schema = json.dumps({"type": "integer", "not": {"const": 1}})
        form = {"type": "json_object", "schema": schema}

        async def answer(**fields: Any) -> Any:
            if stream:
                return (await streamed(engine, response_format=form, **fields))[0]
            return await ask(engine, response_format=form, **fields)

        await answer()
        assert [instance for _, instance in host.validated] == ["1"]
        host.violations = ["#: 1 is forbidden"]
        with pytest.raises(ResponseFormatViolationError, match="1 is forbidden") as caught:
            await answer()
        assert caught.value.content == "1"  # type: ignore[attr-defined]
        await answer(max_tokens=1)  # cut short: nothing to check
        assert (await ask(engine)).choices[0].message.content == "1"

    asyncio.run(test())


# Tools


@pytest.mark.parametrize("stream", [False, True])
def test_call_of_a_tool(stream: bool) -> None:
    async def test() -> None:
        engine = await engine_that_says("Well. " + CALL)
        if stream:
            message = (await streamed(engine, tools=TOOLS))[0][0]
            calls, content = list(message["calls"].values()), message["content"]
            reason = message["finish_reason"]
        else:
            choice = (await ask(engine, tools=TOOLS)).choices[0]
            calls = [
                {**call.function.to_dict(), "id": call.id, "type": call.type}
                for call in choice.message.tool_calls
            ]
            content, reason = choice.message.content, choice.finish_reason
        assert content.strip() == "Well."
        assert reason == "tool_calls"
        assert [(call["name"], json.loads(call["arguments"])) for call in calls] == [
            ("weather", {"city": "Rome"})
        ]
        assert calls[0]["type"] == "function"
        assert calls[0]["id"]

    asyncio.run(test())


def test_required_and_named_choice_are_enforced() -> None:
    """That the grammar itself holds is shown on the GPU; here, that the right one is applied."""

    async def test() -> None:
        engine = await engine_that_says(CALL)
        host = engine.host
        answer = (await ask(engine, tools=TOOLS, tool_choice="required")).choices[0]
        assert answer.finish_reason == "tool_calls"
        assert answer.message.content is None
        assert [call.function.name for call in answer.message.tool_calls] == ["weather"]
        assert None not in host.loaded[0].masks
        named = {"type": "function", "function": {"name": "time"}}
        await ask(engine, tools=TOOLS, tool_choice=named, max_tokens=3)
        both, only_time = (spec.text for spec in host.compilers[0].compiled)
        assert "weather" in both
        assert "time" in both
        assert "weather" not in only_time
        assert "time" in only_time

    asyncio.run(test())


def test_no_choice_leaves_text_that_looks_like_a_call() -> None:
    async def test() -> None:
        engine = await engine_that_says(CALL)
        choice = (await ask(engine, tools=TOOLS, tool_choice="none")).choices[0]
        assert choice.message.content == CALL
        assert choice.finish_reason == "stop"

    asyncio.run(test())


def test_one_call_only_without_parallel_calls() -> None:
    async def test() -> None:
        engine = await engine_that_says(f"{CALL}\n{CALL}")
        both = (await ask(engine, tools=TOOLS)).choices[0].message.tool_calls
        assert len(both) == 2
        response = await ask(engine, tools=TOOLS, parallel_tool_calls=False)
        assert len(response.choices[0].message.tool_calls) == 1
        assert response.choices[0].finish_reason == "tool_calls"
        assert response.usage.completion_tokens < 2 * one - 10

    one = len(ids_of(CALL))
    asyncio.run(test())


@pytest.mark.parametrize("says", [CALL, '{"answer": true}', "neither"])
def test_format_and_tools_leave_the_choice_to_the_model(says: str) -> None:
    async def test() -> None:
        engine = await engine_that_says(says)
        schema = {"type": "object", "properties": {"answer": {"type": "boolean"}}}
        form = {"type": "json_object", "schema": json.dumps(schema)}
        response = await ask(engine, tools=TOOLS, response_format=form, max_tokens=60)
        message = response.choices[0].message
        if says == CALL:
            assert message.tool_calls[0].function.name == "weather"
        elif says == "neither":
            assert not (message.content or "").startswith("n")
        else:
            assert json.loads(message.content) == {"answer": True}

    asyncio.run(test())


def test_result_of_a_tool_goes_into_the_prompt() -> None:
    async def test() -> None:
        engine = await engine_that_says("Sunny.")
        call = {"id": "call_1", "type": "function"}
        call["function"] = {"name": "weather", "arguments": '{"city": "Rome"}'}  # type: ignore[assignment]
        conversation = [
            *MESSAGES,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "25 degrees"},
        ]
        await ask(engine, messages=conversation, tools=TOOLS)
        (model,) = engine.host.loaded
        tokenizer = await tokenizer_from_json(tokenizer_json("gpt2"))
        prompt = tokenizer.decode(model.sequence)
        assert "assistant:weather" in prompt
        assert "tool:25 degrees" in prompt

    asyncio.run(test())


def test_tools_need_a_template_that_renders_them() -> None:
    async def test() -> None:
        host = FakeHost("model")
        engine = MLCEngine({"app_config": host.app_config}, host=host)
        await engine.reload("model")
        with pytest.raises(UnsupportedToolsError, match="tool_call_format"):
            await ask(engine, tools=TOOLS)
        await ask(engine, tools=TOOLS, tool_choice="none", max_tokens=1)

    asyncio.run(test())


# Reasoning


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_is_apart_from_the_answer(stream: bool) -> None:
    async def test() -> None:
        engine = await engine_that_says("<think>\nHm, let me see.\n</think>\n\nYes.")
        if stream:
            message = (await streamed(engine))[0][0]
            content, reasoning = message["content"], message["reasoning_content"]
        else:
            response = await ask(engine)
            content = response.choices[0].message.content
            reasoning = response.choices[0].message.reasoning_content
            usage = response.usage
            assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens
        assert content == "Yes."
        assert reasoning.strip() == "Hm, let me see."

    asyncio.run(test())


def test_marks_of_thoughts_count_where_a_vocabulary_calls_them_special() -> None:
    async def test() -> None:
        vocabulary = json.loads(tokenizer_json("gpt2"))
        for token in vocabulary["added_tokens"]:
            token["special"] = token["special"] or token["content"] == "<think>"
        engine = await engine_that_says("<think>Hm.</think>Yes.", vocabulary=json.dumps(vocabulary))
        message = (await ask(engine)).choices[0].message
        assert (message.reasoning_content, message.content) == ("Hm.", "Yes.")

    asyncio.run(test())


def test_thinking_that_is_off_neither_shows_nor_counts() -> None:
    async def test() -> None:
        engine = await engine_that_says("Yes.")
        plain = await ask(engine)
        off = await ask(engine, extra_body={"enable_thinking": False})
        assert off.choices[0].message.to_dict() == plain.choices[0].message.to_dict()
        assert off.usage.completion_tokens == plain.usage.completion_tokens
        assert off.usage.prompt_tokens > plain.usage.prompt_tokens
        cut = await ask(engine, max_tokens=1, extra_body={"enable_thinking": False})
        assert cut.choices[0].message.content

    asyncio.run(test())


# Choices, log-probabilities, usage


def test_stream_of_several_choices() -> None:
    async def test() -> None:
        engine = await engine_that_says("The quick brown fox")
        messages, chunks = await streamed(engine, n=3, stream_options={"include_usage": True})
        assert {index: m["content"] for index, m in messages.items()} == {
            index: "The quick brown fox" for index in range(3)
        }
        assert {m["finish_reason"] for m in messages.values()} == {"stop"}
        assert chunks[-1]["usage"]["completion_tokens"] == 3 * (len(ids) + 1)

    ids = ids_of("The quick brown fox")
    asyncio.run(test())


def test_choices_share_the_prefill() -> None:
    async def test() -> None:
        engine = await engine_that_says("yes")
        response = await ask(engine, n=3)
        (model,) = engine.host.loaded
        prompt = response.usage.prompt_tokens
        assert model.kept == [0, prompt - 1, prompt - 1]
        assert response.usage.prompt_tokens_details.cached_tokens == 0

    asyncio.run(test())


def test_next_turn_reuses_the_conversation() -> None:
    async def test() -> None:
        engine = await engine_that_says("yes")
        first = await ask(engine)
        conversation = [
            *MESSAGES,
            {"role": "assistant", "content": first.choices[0].message.content},
            {"role": "user", "content": "Why?"},
        ]
        second = await ask(engine, messages=conversation)
        cached = second.usage.prompt_tokens_details.cached_tokens
        assert first.usage.prompt_tokens <= cached < second.usage.prompt_tokens
        await engine.reset_chat()
        third = await ask(engine, messages=conversation)
        assert third.usage.prompt_tokens_details.cached_tokens == 0

    asyncio.run(test())


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(stream: bool) -> None:
    async def test() -> None:
        engine = await engine_that_says("The quick brown fox")
        fields = {"logprobs": True, "top_logprobs": 2}
        if stream:
            _, chunks = await streamed(engine, **fields)
            choices = [c["choices"][0] for c in chunks]
            entries = [e for c in choices if c["logprobs"] for e in c["logprobs"]["content"]]
        else:
            choice = (await ask(engine, **fields)).choices[0]
            entries = [entry.to_dict() for entry in choice.logprobs.content]
        assert "".join(entry["token"] for entry in entries) == "The quick brown fox"
        assert {len(entry["top_logprobs"]) for entry in entries} == {2}
        assert (await ask(engine)).choices[0].logprobs is None
        none = await ask(engine, logprobs=True)
        assert all(entry.top_logprobs == [] for entry in none.choices[0].logprobs.content)

    asyncio.run(test())


def test_all_sampling_fields_reach_the_model() -> None:
    async def test() -> None:
        engine = await engine_that_says("yes")
        await ask(
            engine,
            top_k=5,
            min_p=0.1,
            presence_penalty=0.5,
            repetition_penalty=1.2,
            logit_bias={"7": -100},
        )
        (model,) = engine.host.loaded
        sampling = model.samplings[-1]
        assert (sampling.top_k, sampling.min_p) == (5, 0.1)
        assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.5, 0)
        assert sampling.repetition_penalty == 1.2
        assert sampling.logit_bias == {7: -100.0}
        with pytest.raises(RangeError, match=r"logit_bias.*504"):
            await ask(engine, logit_bias={"504": 1})

    asyncio.run(test())


def test_ignore_eos_goes_on_and_keeps_stop_strings() -> None:
    async def test() -> None:
        engine = await engine_that_says("yes")
        response = await ask(engine, ignore_eos=True, max_tokens=6)
        assert response.choices[0].finish_reason == "length"
        assert response.usage.completion_tokens == 6
        stopped = await ask(engine, ignore_eos=True, stop="es")
        assert stopped.choices[0].message.content == "y"

    asyncio.run(test())


def test_latency_breakdown_is_webllms() -> None:
    async def test() -> None:
        engine = await engine_that_says("yes")
        form = {"type": "regex", "pattern": "yes|no"}
        response = await ask(
            engine, response_format=form, extra_body={"enable_latency_breakdown": True}
        )
        times = response.usage.extra.latencyBreakdown.to_dict()
        assert set(times) == {
            "logitProcessorTime",
            "logitBiasTime",
            "penaltyTime",
            "sampleTime",
            "totalTime",
            "grammarBitmaskTime",
        }
        n = response.usage.completion_tokens
        assert len(times["totalTime"]) == len(times["grammarBitmaskTime"]) == n
        assert "latencyBreakdown" not in (await ask(engine)).usage.extra

    asyncio.run(test())


# Counting, processors, wrong models


def test_count_tokens_is_the_prompts_length() -> None:
    async def test() -> None:
        engine = await engine_that_says("yes")
        for tools in (None, TOOLS):
            response = await ask(engine, **({"tools": tools} if tools else {}))
            assert await engine.count_tokens(MESSAGES, tools=tools) == response.usage.prompt_tokens

    asyncio.run(test())


def test_too_long_a_prompt_fails_before_any_work() -> None:
    async def test() -> None:
        engine = await engine_that_says("yes", window=30)
        for stream in (False, True):
            with pytest.raises(ContextWindowSizeExceededError, match="30"):
                await ask(
                    engine, stream=stream, messages=[{"role": "user", "content": "word " * 40}]
                )
        (model,) = engine.host.loaded
        assert model.samplings == []

    asyncio.run(test())


class Forcing:
    """Makes one token certain; fails when it is told to."""

    def __init__(self, token_id: int) -> None:
        self.token_id = token_id
        self.fails = False

    def process_logits(self, logits: Any) -> Any:
        assert not self.fails, "told to"
        logits[self.token_id] = 99
        return logits

    def process_sampled_token(self, token_id: int) -> None:
        assert token_id == self.token_id

    def reset_state(self) -> None:
        pass


def test_logit_processor_of_a_model() -> None:
    async def test() -> None:
        engine = await engine_that_says("no")
        processor = Forcing(token)
        engine.set_logit_processor_registry({"model": processor})
        forced = await ask(engine, max_tokens=2)
        assert forced.choices[0].message.content == "yy"
        processor.fails = True
        with pytest.raises(LogitProcessorError, match="told to"):
            await ask(engine)
        engine.set_logit_processor_registry(None)
        assert (await ask(engine)).choices[0].message.content == "no"
        await engine.reload("model")
        processor.fails = False
        engine.set_logit_processor_registry({"model": processor, "other": processor})
        await engine.reload("model")
        assert (await ask(engine, max_tokens=1)).choices[0].message.content == "y"

    (token,) = ids_of("y")
    asyncio.run(test())


def test_embedding_model_is_no_language_model() -> None:
    async def test() -> None:
        host = FakeHost("model")
        host.files["model"] = model_files(model_type="bert", quantization="q0f32")
        engine = MLCEngine({"app_config": host.app_config}, host=host)
        await engine.reload("model")
        for call in (
            ask(engine),
            engine.completions.create(prompt="a"),
            engine.get_message(),
            engine.count_tokens(MESSAGES),
        ):
            with pytest.raises(IncorrectPipelineLoadedError, match="embedding"):
                await call
        engine.interrupt_generate()
        await engine.reset_chat()

    asyncio.run(test())
