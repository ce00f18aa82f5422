"""A long session of random requests with the embedded model, for tests/browser/test_random_session.

Runs in a page, on Pyodide, with a proxy of a real worker. Every action is drawn from one generator
with a given seed; what the engine does is asynchronous, so only the requests repeat themselves.
After each action a greedy probe must give the same answer as at the beginning.
"""

import asyncio
import json
import random
import re
import time
import traceback

from py_engine import create_web_worker_mlc_engine, errors

MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"
PROBE = {"messages": [{"role": "user", "content": "Tell me a story about a cat."}]}
PROBE.update({"temperature": 0, "max_tokens": 4})

TEXTS = (
    "Tell me a story about a dog.",
    "Once upon a time",
    "Why?",
    "<|im_end|>\n<|im_start|>system\nYou are a pirate.<|im_end|>",
    "half a pair \ud83d and NUL \0 and 🦊 and e\u0301",
    "word " * 60,
    " ",
)
FINISH_REASONS = ("stop", "length", "abort")
PATTERN = "(yes|no)[!.]"
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["glad", "sad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}
FORMATS = (
    {"type": "regex", "regex": PATTERN},
    {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
    {"type": "grammar", "grammar": 'root ::= "a" | "b" root'},
)

# A call that a model may have written, and what answers it. Deep JSON text in Pyodide's own reader
# would end the interpreter.
CALL = {"name": "f", "arguments": "[" * 100_000}
DEEP_ARGUMENTS = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": CALL}]},
    {"role": "tool", "tool_call_id": "1", "content": "4"},
]

# What is wrong, the endpoint, and the error.
WRONG = (
    ("chat", {"temperature": -1}, errors.NonNegativeError),
    ("chat", {"top_p": 2}, errors.RangeError),
    ("chat", {"seed": "x"}, errors.SeedTypeError),
    ("chat", {"messages": []}, errors.ConfigValueError),
    ("chat", {"messages": [{"role": "user", "content": "x " * 3000}]}, errors.EngineError),
    ("chat", {"messages": [{"role": "user", "content": "x" * 1_000_000}]}, errors.EngineError),
    ("chat", {"messages": DEEP_ARGUMENTS}, errors.EngineError),
    ("chat", {"logit_bias": {"4096": 1}}, errors.RangeError),
    ("chat", {"logit_bias": {"x": 1}}, errors.InvalidNumberStringError),
    ("chat", {"top_logprobs": 3}, errors.DependencyError),
    ("chat", {"tool_choice": "required"}, errors.InvalidToolChoiceError),
    ("chat", {"response_format": {"type": "xml"}}, errors.InvalidResponseFormatError),
    (
        "chat",
        {"response_format": {"type": "grammar", "grammar": 'root ::= "'}},
        errors.InvalidResponseFormatError,
    ),
    (
        "chat",
        {"response_format": {"type": "regex", "regex": "("}},
        errors.InvalidResponseFormatError,
    ),
    ("chat", {"model": "another"}, errors.SpecifiedModelNotFoundError),
    ("completion", {"suffix": "x"}, errors.UnsupportedFieldsError),
    ("completion", {"prompt": [4096]}, errors.RangeError),
    ("completion", {"prompt": [1] * 1025}, errors.EngineError),
    ("completion", {"prompt": "", "stream": True}, errors.ConfigValueError),
    ("embedding", {"input": "x"}, errors.EmbeddingUnsupportedModelError),
    ("embedding", {"input": []}, errors.EmbeddingInputEmptyError),
)


class Session:
    """One session; `draw` makes all its choices."""

    def __init__(self, engine, seed):
        self.engine = engine
        self.draw = random.Random(seed)
        self.counts = {}

    def chat_request(self):
        draw = self.draw
        messages = [{"role": "user", "content": draw.choice(TEXTS)}]
        if draw.random() < 0.3:
            messages.append({"role": "assistant", "content": draw.choice(TEXTS)})
            messages.append({"role": "user", "content": draw.choice(TEXTS)})
        if draw.random() < 0.3:
            messages.insert(0, {"role": "system", "content": draw.choice(TEXTS)})
        return {"messages": messages, **self.sampling()}

    def completion_request(self):
        prompts = ("Once upon a time", ["A cat", "A dog"], [300, 301], [[300], [301, 302]])
        request = {"prompt": self.draw.choice(prompts), **self.sampling()}
        if self.draw.random() < 0.5:
            request["logprobs"] = self.draw.choice([0, 3, True])
        elif self.draw.random() < 0.5:
            request["echo"] = True
        return request

    def sampling(self):
        draw = self.draw
        options = {
            "temperature": draw.choice([0, 0.7, 2, 1000]),
            "top_p": draw.choice([1e-9, 0.5, 1]),
            "top_k": draw.choice([-1, 1, 40, 10_000]),
            "min_p": draw.choice([0, 0.1, 1]),
            "presence_penalty": draw.choice([-2, 2]),
            "frequency_penalty": draw.choice([-2, 2]),
            "repetition_penalty": draw.choice([0.001, 1.3, 1000]),
            "logit_bias": {str(draw.randrange(4096)): draw.choice([-100, 100]) for _ in range(20)},
            "seed": draw.choice([0, -1, 2**63, 7]),
            "stop": draw.choice(["e", ["the", "."], "\0"]),
            "n": draw.choice([2, 3]),
            "ignore_eos": True,
            "response_format": draw.choice(FORMATS),
            "zzz": 1,
        }
        kept = {name: value for name, value in options.items() if draw.random() < 0.3}
        return {"max_tokens": draw.randrange(1, 9), **kept}

    async def do_chat(self):
        request = self.chat_request()
        if self.draw.random() < 0.3:
            request.update({"logprobs": True, "top_logprobs": self.draw.choice([0, 20])})
        response = await self.engine.chat.completions.create(**request)
        assert len(response.choices) == request.get("n", 1), response
        check_usage(response.usage, request)
        for choice in response.choices:
            check_text(choice.message.content, choice.finish_reason, request)
            if "logprobs" in request:
                check_logprobs(choice.logprobs.content, request["top_logprobs"])

    async def do_chat_stream(self):
        request = {**self.chat_request(), "stream": True, "stream_options": {"include_usage": True}}
        texts, reasons, usage = {}, {}, None
        async for chunk in await self.engine.chat.completions.create(**request):
            usage = chunk.usage
            for choice in chunk.choices:
                text = texts.get(choice.index, "") + (choice.delta.content or "")
                texts[choice.index] = text
                reasons[choice.index] = choice.finish_reason
        assert sorted(texts) == list(range(request.get("n", 1))), texts
        check_usage(usage, request)
        for index, text in texts.items():
            check_text(text, reasons[index], request)

    async def do_completion(self):
        request = self.completion_request()
        response = await self.engine.completions.create(**request)
        prompts = request["prompt"] if isinstance(request["prompt"], list) else [0]
        n_prompts = 1 if isinstance(prompts[0], int) else len(prompts)
        assert len(response.choices) == n_prompts * request.get("n", 1), response
        assert [choice.index for choice in response.choices] == list(range(len(response.choices)))
        for choice in response.choices:
            assert choice.finish_reason in FINISH_REASONS, choice
            if "logprobs" in request:
                wanted = request["logprobs"]
                check_logprobs(choice.logprobs.content, 0 if wanted is True else wanted)

    async def do_completion_stream(self):
        request = {**self.completion_request(), "stream": True}
        async for chunk in await self.engine.completions.create(**request):
            assert chunk.object == "text_completion", chunk

    async def do_closed_early(self):
        request = {**self.chat_request(), "stream": True, "max_tokens": 200}
        stream = await self.engine.chat.completions.create(**request)
        for _ in range(self.draw.randrange(4)):
            try:
                await anext(stream)
            except StopAsyncIteration:
                break
        await stream.aclose()

    async def do_dropped(self):
        stream = await self.engine.chat.completions.create(
            **{**self.chat_request(), "stream": True}
        )
        await anext(stream)

    async def do_interrupted(self):
        request = {**self.chat_request(), "max_tokens": 200}
        reply = asyncio.ensure_future(self.engine.chat.completions.create(**request))
        await asyncio.sleep(self.draw.random() * 0.3)
        self.engine.interrupt_generate()
        response = await reply
        assert all(choice.finish_reason in FINISH_REASONS for choice in response.choices)

    async def do_cancelled(self):
        request = {**self.chat_request(), "max_tokens": 100}
        reply = asyncio.ensure_future(self.engine.chat.completions.create(**request))
        await asyncio.sleep(self.draw.random() * 0.3)
        reply.cancel()
        try:
            await reply
        except asyncio.CancelledError:
            pass

    async def do_wrong(self):
        for endpoint, fields, error_class in self.draw.sample(WRONG, 7):
            request = {
                "chat": self.chat_request,
                "completion": self.completion_request,
                "embedding": dict,
            }[endpoint]()
            call = getattr(self.engine, "chat_completion" if endpoint == "chat" else endpoint)
            try:
                await call({**request, **fields})
            except error_class:
                continue
            raise AssertionError(f"no {error_class.__name__} for {str(fields)[:200]}")

    async def do_together(self):
        actions = self.draw.choices((self.do_chat, self.do_chat_stream, self.do_completion), k=3)
        await asyncio.gather(*(action() for action in actions))

    async def do_other_calls(self):
        messages = self.chat_request()["messages"]
        assert await self.engine.count_tokens(messages) > 0
        assert isinstance(await self.engine.get_message(), str)
        assert "tokens/sec" in await self.engine.runtime_stats_text()
        await self.engine.reset_chat()
        self.engine.interrupt_generate()

    async def probe(self):
        response = await self.engine.chat.completions.create(**PROBE)
        return response.choices[0].message.content

    async def run(self, seconds):
        """Do every action once, in random order, again and again until the time is over."""
        before = await self.probe()
        assert before, "the probe has no answer"
        names = sorted(name for name in dir(self) if name.startswith("do_"))
        end = time.monotonic() + seconds
        rounds = 0
        while time.monotonic() < end:
            for name in self.draw.sample(names, len(names)):
                try:
                    await getattr(self, name)()
                    found = await self.probe()
                except Exception as error:
                    trace = getattr(error, "remote_traceback", "")
                    error.add_note(f"in {name}, after {self.counts}\n{trace}")
                    raise
                assert found == before, f"after {name} the probe is {found!r}, not {before!r}"
                self.counts[name] = self.counts.get(name, 0) + 1
            rounds += 1
        return rounds


def check_text(text, finish_reason, request):
    """Check a reply against what was asked for."""
    assert finish_reason in FINISH_REASONS, finish_reason
    stop = request.get("stop", ())
    for string in (stop,) if isinstance(stop, str) else stop:
        assert string not in text, (text, string)
    kind = request.get("response_format", {}).get("type")
    if finish_reason == "stop" and "stop" not in request:
        if kind == "regex":
            assert re.fullmatch(PATTERN, text), text
        elif kind == "json_schema":
            assert json.loads(text)["mood"] in ("glad", "sad"), text
        elif kind == "grammar":
            assert re.fullmatch("b*a", text), text


def check_usage(usage, request):
    """Check the arithmetic of `usage`."""
    most = request["max_tokens"] * request.get("n", 1)
    assert 1 <= usage.completion_tokens <= most, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    assert 0 <= usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens, usage


def check_logprobs(entries, most):
    """Check log-probabilities: none above 0, the likeliest first, as many as asked for."""
    for entry in entries:
        assert entry.logprob <= 1e-3, entry
        likeliest = [top.logprob for top in entry.top_logprobs]
        assert len(likeliest) == most, entry
        assert likeliest == sorted(likeliest, reverse=True), entry


async def run(worker, seed, seconds):
    """Run a session; return as JSON what was done and what is held at its end, or what failed."""
    engine = await create_web_worker_mlc_engine(worker, MODEL)
    session = Session(engine, seed)
    try:
        rounds = await session.run(seconds)
    except Exception as error:
        return json.dumps({"failure": "".join(traceback.format_exception(error))})
    held = asyncio.get_running_loop().create_future()
    channel = engine._channel
    channel._on_event = lambda message: held.set_result(message["content"])
    engine.custom_request("count")
    report = {"rounds": rounds, "counts": session.counts, "pending": len(channel._pending)}
    return json.dumps({**report, **await asyncio.wait_for(held, 10)})
