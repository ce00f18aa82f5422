"""MLCEngine's text completions and embeddings over scripted models."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import pytest

from py_engine.engine import MLCEngine
from py_engine.errors import (
    ConfigValueError,
    ContextWindowSizeExceededError,
    EmbeddingExceedContextWindowSizeError,
    EmbeddingUnsupportedModelError,
    RangeError,
    UnclearModelToUseError,
)
from tests.support.engines import engine_of, ids_of
from tests.support.fake_host import END, FakeHost, model_files

TEXT = "The quick brown fox"
EMBEDDER = {"model_type": "bert", "quantization": "q0f32"}


IDS = ids_of(TEXT)


async def completing_engine() -> tuple[MLCEngine, Any]:
    host = FakeHost("model")
    host.scripts["model"] = [*IDS, END]
    engine = await engine_of(host, "model")
    return engine, host.loaded[0]


async def chunks_of(engine: MLCEngine, **fields: Any) -> list[Any]:
    stream = await engine.completions.create(stream=True, **fields)
    return [chunk async for chunk in stream]


def test_completion_continues_its_prompt_as_it_is() -> None:
    async def test() -> None:
        engine, model = await completing_engine()
        response = await engine.completions.create(prompt="Once upon")
        assert response.object == "text_completion"
        assert response.choices[0].text == TEXT
        assert response.choices[0].finish_reason == "stop"
        assert model.sequence[: len(prompt)] == prompt
        assert response.usage.prompt_tokens == len(prompt)
        assert response.usage.completion_tokens == len(IDS) + 1

    prompt = ids_of("Once upon")
    asyncio.run(test())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("echo", [False, True])
def test_prompts_of_every_kind_and_several_choices(stream: bool, echo: bool) -> None:
    async def test() -> None:
        engine, _ = await completing_engine()
        for prompt, texts in (
            ("Once", ["Once"]),
            (["Once", "Twice"], ["Once", "Twice"]),
            (ids, ["Once"]),
            ([ids, ids], ["Once", "Once"]),
        ):
            fields = {"prompt": prompt, "n": 2, "echo": echo}
            found: dict[int, str] = {}
            if stream:
                for chunk in await chunks_of(engine, **fields):
                    choice = chunk.choices[0]
                    found[choice.index] = found.get(choice.index, "") + choice.text
            else:
                response = await engine.completions.create(**fields)
                found = {choice.index: choice.text for choice in response.choices}
                assert response.usage.prompt_tokens == sum(len(ids_by_text[text]) for text in texts)
            expected = [text * echo + TEXT for text in texts for _ in range(2)]
            assert found == dict(enumerate(expected))

    ids_by_text = {text: ids_of(text) for text in ("Once", "Twice")}
    ids = ids_by_text["Once"]
    asyncio.run(test())


def test_completion_logprobs_have_both_forms() -> None:
    async def test() -> None:
        engine, _ = await completing_engine()
        choice = (await engine.completions.create(prompt="Once", logprobs=2)).choices[0]
        logprobs = choice.logprobs.to_dict()
        assert "".join(logprobs["tokens"]) == TEXT
        assert len(logprobs["token_logprobs"]) == len(logprobs["top_logprobs"]) == len(IDS)
        for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
            assert TEXT[offset:].startswith(token)
        assert [entry["token"] for entry in logprobs["content"]] == logprobs["tokens"]
        chunks = await chunks_of(engine, prompt="Once", logprobs=True, top_logprobs=1)
        offsets = [
            o for c in chunks if c.choices[0].logprobs for o in c.choices[0].logprobs.text_offset
        ]
        assert offsets == logprobs["text_offset"]

    asyncio.run(test())


def test_completion_refuses_what_it_cannot_do() -> None:
    async def test() -> None:
        engine, model = await completing_engine()
        for prompt, error in (
            ("", ConfigValueError),
            ([504], RangeError),
            (["a", "b " * 200], ContextWindowSizeExceededError),
        ):
            with pytest.raises(error):
                await engine.completions.create(prompt=prompt)
        assert model.samplings == []
        assert (await engine.completions.create(prompt="a")).choices[0].text == TEXT

    asyncio.run(test())


def test_closed_completion_stream_frees_the_model() -> None:
    async def test() -> None:
        engine, model = await completing_engine()
        stream = await engine.completions.create(prompt="a", stream=True)
        await anext(stream)
        await stream.aclose()
        assert model.in_flight == 0
        assert (await engine.completions.create(prompt="a")).choices[0].text == TEXT

    asyncio.run(test())


def test_interruption_leaves_out_the_choices_to_come() -> None:
    async def test() -> None:
        engine, model = await completing_engine()
        model.on_step = lambda number: engine.interrupt_generate() if number == 2 else None
        response = await engine.completions.create(prompt=["a", "b"], n=2)
        assert [choice.finish_reason for choice in response.choices] == ["abort"]

    asyncio.run(test())


# Embeddings


async def embedding_engine() -> tuple[MLCEngine, FakeHost]:
    host = FakeHost("model", "embedder")
    host.files["embedder"] = model_files(**EMBEDDER)
    return await engine_of(host, *host.files), host


def test_embeddings_beside_a_language_model() -> None:
    async def test() -> None:
        engine, host = await embedding_engine()
        inputs = ["Once", "The quick", "fox"]
        response = await engine.embeddings.create(model="embedder", input=inputs)
        assert [item.index for item in response.data] == [0, 1, 2]
        for text, item in zip(inputs, response.data, strict=True):
            ids = ids_by_text[text]
            assert item.embedding == [sum(ids), len(ids), 3, 4]
        assert response.usage.prompt_tokens == sum(map(len, ids_by_text.values()))
        assert [len(batch) for batch in host.embedders[0].batches] == [2, 1]
        with pytest.raises(UnclearModelToUseError):
            await engine.embeddings.create(input="a")
        with pytest.raises(EmbeddingUnsupportedModelError, match="language model"):
            await engine.embeddings.create(model="model", input="a")

    ids_by_text = {text: ids_of(text) for text in ("Once", "The quick", "fox")}
    asyncio.run(test())


def test_embedding_formats() -> None:
    async def test() -> None:
        engine, _ = await embedding_engine()
        fields = {"model": "embedder", "input": [7, 8]}
        plain = (await engine.embeddings.create(**fields)).data[0].embedding
        packed = await engine.embeddings.create(**fields, encoding_format="base64")
        assert list(struct.unpack("<4f", base64.b64decode(packed.data[0].embedding))) == plain
        short = await engine.embeddings.create(**fields, dimensions=2)
        assert short.data[0].embedding == plain[:2]
        with pytest.raises(RangeError, match="1 to 4"):
            await engine.embeddings.create(**fields, dimensions=5)

    asyncio.run(test())


def test_embedding_that_does_not_fit_is_refused() -> None:
    async def test() -> None:
        engine, host = await embedding_engine()
        with pytest.raises(EmbeddingExceedContextWindowSizeError, match="window_size is 12"):
            await engine.embeddings.create(model="embedder", input="word " * 40)
        assert host.embedders[0].batches == []
        await engine.unload()
        assert host.embedders[0].is_destroyed

    asyncio.run(test())
