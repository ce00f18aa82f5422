"""Embeddings end to end in a worker: a tiny BERT over HTTP, WebGPU, OpenAI's request and response.

Expected vectors are those of transformers' BertModel with sentence-transformers' pooling; f32 sums
in another order differ by less than 1e-5 in vectors of length 1.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.conformance.encoder_fixtures import EncoderFixture
from tests.conformance.encoder_recipe import TEXTS
from tests.support.engine_worker import EngineWorker

PATH = "test-models/tiny-bert/"
TOLERANCE = 1e-5

# Defined once in the worker; the tests' functions import it from there.
HELPERS = '''
import sys
import types

from py_engine import config
from py_engine.config import AppConfig, ModelRecord, ModelType
from py_engine.engine import MLCEngine

CHAT_MODEL = config.prebuilt_app_config.model_list[0]
ENCODER = ModelRecord(PATH, "tiny-bert", model_type=ModelType.embedding)
engine = MLCEngine({"app_config": AppConfig([CHAT_MODEL, ENCODER])})


async def loaded(**options):
    """Return the engine with the encoder alone, loaded with these chat_opts."""
    await engine.reload("tiny-bert", options)
    return engine


async def failure(awaitable):
    """Return the class and text of the error of an awaitable."""
    try:
        await awaitable
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


helpers = types.ModuleType("embedding_helpers")
helpers.__dict__.update({k: v for k, v in globals().items() if not k.startswith("__")})
sys.modules["embedding_helpers"] = helpers
'''


@pytest.fixture(scope="module")
def worker(engine_worker: EngineWorker, tiny_bert: EncoderFixture) -> Iterator[EngineWorker]:
    engine_worker.run(HELPERS, PATH=PATH)
    yield engine_worker
    engine_worker.run("from embedding_helpers import engine\nawait engine.unload()")


async def _create(options: dict[str, Any], requests: list[dict[str, Any]]) -> list[Any]:
    from embedding_helpers import loaded

    engine = await loaded(**options)
    return [(await engine.embeddings.create(**request)).to_dict() for request in requests]


def vectors(response: dict[str, Any]) -> np.ndarray:
    """Return a response's vectors in the order of their index."""
    assert [entry["index"] for entry in response["data"]] == list(range(len(response["data"])))
    return np.array([entry["embedding"] for entry in response["data"]], np.float32)


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", False)])
def test_vectors_are_those_of_sentence_transformers(
    worker: EngineWorker, tiny_bert: EncoderFixture, pooling: str, normalize: bool
) -> None:
    options = {"pooling": pooling, "normalize": normalize, "max_batch_size": 2}
    [found] = worker.run(_create, options=options, requests=[{"input": TEXTS}])
    expected = tiny_bert.vectors(pooling, normalize)
    np.testing.assert_allclose(vectors(found), expected, atol=TOLERANCE * np.abs(expected).max())
    n_tokens = sum(map(len, tiny_bert.sequences))
    assert (found["object"], found["model"]) == ("list", "tiny-bert")
    assert found["usage"]["prompt_tokens"] == found["usage"]["total_tokens"] == n_tokens
    assert found["usage"]["extra"]["prefill_tokens_per_s"] > 0


def test_forms_of_input_and_of_vectors(worker: EngineWorker, tiny_bert: EncoderFixture) -> None:
    """One text, written special tokens, token ids, base64 and fewer dimensions."""
    ids = tiny_bert.sequences[0]
    requests: list[dict[str, Any]] = [
        {"input": TEXTS[0]},
        {"input": f"[CLS] {TEXTS[0]} [SEP]"},
        {"input": ids},
        {"input": [ids, tiny_bert.sequences[1]]},
        {"input": TEXTS[0], "encoding_format": "base64"},
        {"input": TEXTS[0], "dimensions": 8},
    ]
    text, written, one, two, packed, short = worker.run(
        _create, options={"normalize": True}, requests=requests
    )
    expected = vectors(text)
    for other in (written, one):
        np.testing.assert_array_equal(vectors(other), expected)
    np.testing.assert_array_equal(vectors(two)[:1], expected)
    raw = base64.b64decode(packed["data"][0]["embedding"])
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), expected[0])
    cut = expected[0, :8] / np.linalg.norm(expected[0, :8])
    np.testing.assert_allclose(vectors(short)[0], cut, atol=1e-6)


def test_many_texts_keep_their_order(worker: EngineWorker, tiny_bert: EncoderFixture) -> None:
    """Far more than a batch, of all lengths; equal texts have equal vectors."""
    order = np.random.default_rng(5).integers(0, len(TEXTS), 90)
    [found] = worker.run(
        _create,
        options={"pooling": "mean", "normalize": True},
        requests=[{"input": [TEXTS[i] for i in order]}],
    )
    expected = tiny_bert.vectors("mean", True)[order]
    np.testing.assert_allclose(vectors(found), expected, atol=TOLERANCE)
    cosines = vectors(found) @ vectors(found).T
    equal = order[:, None] == order
    assert cosines[equal].min() > 1 - 1e-5 > cosines[~equal].max()


def test_wrong_requests_are_told_and_the_next_one_works(worker: EngineWorker) -> None:
    async def wrong() -> dict[str, Any]:
        from embedding_helpers import failure, loaded

        engine = await loaded()
        requests = {
            "too long": {"input": ["dog", "dog " * 80]},
            "empty": {"input": ["dog", ""]},
            "dimensions": {"input": "dog", "dimensions": 65},
            "unknown id": {"input": [5, 400]},
            "format": {"input": "dog", "encoding_format": "hex"},
            "other model": {"input": "dog", "model": "gpt"},
        }
        found = {name: await failure(engine.embedding(each)) for name, each in requests.items()}
        messages = [{"role": "user", "content": "dog"}]
        found["chat"] = await failure(engine.chat_completion({"messages": messages}))
        found["completion"] = await failure(engine.completion({"prompt": "dog"}))
        response = await engine.embeddings.create(input="dog")
        return {"found": found, "size": len(response.data[0].embedding)}

    result = worker.run(wrong)
    expected = {
        "too long": ("EmbeddingExceedContextWindowSizeError", "input[1] has 82 tokens"),
        "empty": ("EmbeddingInputEmptyError", "input[1]"),
        "dimensions": ("RangeError", "65"),
        "unknown id": ("ConfigValueError", "400"),
        "format": ("EmbeddingUnsupportedEncodingFormatError", "hex"),
        "other model": ("SpecifiedModelNotFoundError", "gpt"),
        "chat": ("IncorrectPipelineLoadedError", "tiny-bert"),
        "completion": ("IncorrectPipelineLoadedError", "tiny-bert"),
    }
    for name, (error, text) in expected.items():
        assert result["found"][name][0] == error, result["found"][name]
        assert text in result["found"][name][1]
    assert result["size"] == 64


def test_wrong_options_end_a_load_and_the_next_one_works(worker: EngineWorker) -> None:
    async def wrong() -> dict[str, Any]:
        from embedding_helpers import engine, failure, loaded

        options = {
            "chunks": {"prefill_chunk_size": 16},
            "window": {
                "context_window_size": -1,
                "sliding_window_size": 16,
                "attention_sink_size": 0,
            },
            "pooling": {"pooling": "max"},
        }
        found = {name: await failure(loaded(**each)) for name, each in options.items()}
        unloaded = await failure(engine.embedding({"input": "dog"}))
        await loaded()
        await engine.embeddings.create(input="dog")
        return {"found": found, "unloaded": unloaded[0]}

    result = worker.run(wrong)
    expected = {
        "chunks": "EmbeddingChunkingUnsupportedError",
        "window": "EmbeddingSlidingWindowError",
        "pooling": "ConfigurationFieldError",
    }
    assert {name: error for name, (error, _) in result["found"].items()} == expected
    assert result["unloaded"] == "ModelNotLoadedError"


def test_an_encoder_beside_a_language_model(
    worker: EngineWorker, tiny_bert: EncoderFixture
) -> None:
    """Both answer at once; a request for the wrong one says so."""

    async def both() -> dict[str, Any]:
        import asyncio

        from embedding_helpers import CHAT_MODEL, engine, failure

        chat_model = CHAT_MODEL.model_id
        await engine.reload([chat_model, "tiny-bert"])
        messages = [{"role": "user", "content": "Hello!"}]
        chat = {"messages": messages, "model": chat_model, "max_tokens": 4}
        embedding = {"input": "A dog ran over the green hill.", "model": "tiny-bert"}
        answer, *vectors = await asyncio.gather(
            engine.chat_completion(chat), *(engine.embedding(embedding) for _ in range(3))
        )
        return {
            "tokens": answer.usage.completion_tokens,
            "vectors": [response.data[0].embedding for response in vectors],
            "unclear": await failure(engine.embedding({"input": "dog"})),
            "wrong": await failure(engine.embedding({"input": "dog", "model": chat_model})),
        }

    found = worker.run(both)
    assert found["tokens"] == 4
    expected = tiny_bert.vectors("cls", False)[0]
    for vector in found["vectors"]:
        np.testing.assert_allclose(vector, expected, atol=TOLERANCE * np.abs(expected).max())
    assert found["unclear"][0] == "UnclearModelToUseError"
    assert found["wrong"][0] == "EmbeddingUnsupportedModelError"


def test_openais_client_gets_the_same_vectors(worker: EngineWorker) -> None:
    async def run() -> Any:
        import pyodide_js
        from embedding_helpers import loaded

        await pyodide_js.loadPackage("openai")
        from py_engine.openai_transport import async_openai

        engine = await loaded()
        texts = ["A dog ran.", "The stock fell."]
        own = await engine.embeddings.create(input=texts)
        async with async_openai(engine) as client:
            # The client asks for base64 by itself and unpacks it.
            response = await client.embeddings.create(model="tiny-bert", input=texts)
            short = await client.embeddings.create(model="tiny-bert", input=texts[0], dimensions=3)
        return [
            [item.embedding for item in own.data],
            [list(item.embedding) for item in response.data],
            list(short.data[0].embedding),
            [own.usage.prompt_tokens, response.usage.prompt_tokens],
        ]

    own, theirs, short, tokens = worker.run(run)
    assert theirs == own
    assert short == own[0][:3]
    assert tokens[0] == tokens[1]


def test_unload_ends_requests(worker: EngineWorker) -> None:
    async def ended() -> list[Any]:
        import asyncio

        from embedding_helpers import failure, loaded

        engine = await loaded()
        request = {"input": ["The dog ran over a hill!"] * 500}
        requests = [asyncio.ensure_future(failure(engine.embedding(request))) for _ in range(2)]
        await asyncio.sleep(0.1)
        await engine.unload()
        errors = await asyncio.gather(*requests)
        await loaded()
        response = await engine.embeddings.create(input="dog")
        return [[name for name, _ in errors], len(response.data)]

    assert worker.run(ended) == [["ModelNotLoadedError", "ModelNotLoadedError"], 1]
