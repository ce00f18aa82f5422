"""The embedding pipeline: token ids, batches, checks, turns and the end of a model."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from py_engine.api.embedding import EmbeddingRequest
from py_engine.config import ChatConfig, ModelRecord
from py_engine.errors import (
    ConfigValueError,
    DeviceLostError,
    EmbeddingExceedContextWindowSizeError,
    EmbeddingInputEmptyError,
    MissingFileError,
    ModelNotLoadedError,
    RangeError,
)
from py_engine.loaded_embedder import (
    EmbeddingModel,
    is_embedding_model,
    load_embedding_model,
    normalized,
)
from py_engine.models.embedder import EmbeddingOptions
from py_engine.models.encoder_loader import load_embedder
from py_engine.progress import LoadReporter
from py_engine.storage.folder import FolderSource
from py_engine.tokenizer import tokenizer_from_json
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.encoder_fixtures import (
    TOKENIZER,
    load_encoder_fixture,
    write_encoder_folder,
)
from tests.conformance.encoder_recipe import TEXT_CASE, TEXTS
from tests.support.fake_embedder import FakeEmbedder
from tests.support.numpy_device import NumpyDevice

T = TypeVar("T")

CONFIG = {
    "model_type": "bert",
    "quantization": "q0f32",
    "model_config": {},
    "vocab_size": 400,
    "context_window_size": 12,
}


class World:
    """A pipeline over a fake embedder."""

    def __init__(self, model: EmbeddingModel, embedder: FakeEmbedder) -> None:
        self.model = model
        self.embedder = embedder

    async def vectors(self, *inputs: str | tuple[int, ...], **fields: Any) -> list[list[float]]:
        found = await self.model.embed(EmbeddingRequest(inputs=inputs, **fields))
        return [vector.tolist() for vector in found.vectors]


def run(
    test: Callable[[World], Awaitable[T]],
    options: EmbeddingOptions | None = None,
    **embedder: int,
) -> T:
    """Run a test's coroutine on a new pipeline."""

    async def main() -> T:
        tokenizer = await tokenizer_from_json(TOKENIZER.read_text(encoding="utf-8"))
        fake = FakeEmbedder(**embedder)
        config = ChatConfig.from_json(CONFIG)
        model = EmbeddingModel(config, tokenizer, fake, options or EmbeddingOptions())
        return await test(World(model, fake))

    return asyncio.run(main())


def test_texts_get_special_tokens_and_ids_stay_as_they_are() -> None:
    async def test(world: World) -> None:
        inputs = ("dog", "[CLS] dog [SEP]", (7, 8))
        found = await world.model.embed(EmbeddingRequest(inputs=inputs))
        [[first, second, third]] = world.embedder.batches
        assert first == second
        assert (first[0], first[-1], third) == (2, 3, [7, 8])
        assert found.statistics.prefilled_tokens == len(first) + len(second) + 2
        assert found.statistics.prefill_tokens_per_s > 0
        assert world.model.statistics.prefilled_tokens == found.statistics.prefilled_tokens
        world.model.reset(keep_stats=True)
        assert world.model.statistics.prefilled_tokens > 0
        world.model.reset()
        assert world.model.statistics.prefilled_tokens == 0

    run(test)


def test_special_tokens_can_be_left_to_the_caller() -> None:
    async def test(world: World) -> None:
        await world.vectors("dog")
        assert not {2, 3} & set(world.embedder.batches[0][0])
        with pytest.raises(EmbeddingInputEmptyError, match=r"input\[1\] has no tokens"):
            await world.vectors("dog", " ")

    run(test, EmbeddingOptions(add_special_tokens=False))


def test_batches_keep_the_order_and_the_limits() -> None:
    async def test(world: World) -> None:
        lengths = [1, 12, 7, 2, 2, 2, 2, 12, 12]
        inputs = [tuple(range(10 * i, 10 * i + n)) for i, n in enumerate(lengths)]
        found = await world.vectors(*inputs)
        assert [vector[:2] for vector in found] == [[sum(ids), len(ids)] for ids in inputs]
        assert [len(batch) for batch in world.embedder.batches] == [3, 3, 2, 1]

    run(test)


def test_a_list_of_equal_texts_gives_equal_vectors() -> None:
    async def test(world: World) -> None:
        found = await world.vectors(*["dog"] * 7)
        assert len(found) == 7
        assert all(vector == found[0] for vector in found)

    run(test)


def test_dimensions_keep_the_first_values() -> None:
    async def test(world: World) -> None:
        assert await world.vectors((9,), dimensions=2) == [[9, 1]]
        assert await world.vectors((9,), dimensions=4) == [[9, 1, 3, 4]]
        for dimensions in (0, 5, -1):
            with pytest.raises(RangeError, match=f"dimensions is {dimensions}, .* 1 to 4"):
                await world.vectors((9,), dimensions=dimensions)

    run(test)


def test_shortened_vectors_are_normalised_again() -> None:
    async def test(world: World) -> None:
        [vector] = await world.vectors((3, 1, 0, 0), dimensions=2)
        np.testing.assert_allclose(vector, [2**-0.5, 2**-0.5], rtol=1e-6)

    run(test, EmbeddingOptions(normalize=True))
    assert normalized(array("f", [0, 0])).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        (("dog", "dog " * 30), EmbeddingExceedContextWindowSizeError, r"input\[1\] has 32 tokens"),
        ((tuple(range(13)),), EmbeddingExceedContextWindowSizeError, "input has 13 tokens"),
        (((1, 400),), ConfigValueError, "token id 400, but this model's ids are 0 to 399"),
        (((-1,),), ConfigValueError, "token id -1"),
    ],
)
def test_wrong_inputs_fail_before_any_work(inputs: Any, error: type, text: str) -> None:
    async def test(world: World) -> None:
        with pytest.raises(error, match=text):
            await world.vectors(*inputs)
        assert world.embedder.batches == []
        assert await world.vectors((5,)) == [[5, 1, 3, 4]]

    run(test)


def test_requests_take_turns_in_their_order() -> None:
    async def test(world: World) -> None:
        world.embedder.gate = asyncio.Event()
        requests = [asyncio.ensure_future(world.vectors((i,), (i,), (i,), (i,))) for i in range(3)]
        await asyncio.sleep(0.01)
        assert len(world.embedder.batches) == 1
        world.embedder.gate.set()
        assert [found[0][0] for found in await asyncio.gather(*requests)] == [0, 1, 2]
        assert [batch[0][0] for batch in world.embedder.batches] == [0, 0, 1, 1, 2, 2]

    run(test)


def test_a_closed_model_fails_running_and_waiting_requests() -> None:
    async def test(world: World) -> None:
        world.embedder.gate = asyncio.Event()
        requests = [asyncio.ensure_future(world.vectors(*[(1,)] * 4)) for _ in range(2)]
        await asyncio.sleep(0.01)
        world.model.close(ModelNotLoadedError("unloaded"))
        world.model.close(ModelNotLoadedError("again"))
        world.embedder.gate.set()
        for request in requests:
            with pytest.raises(ModelNotLoadedError, match=r"^unloaded$"):
                await request
        with pytest.raises(ModelNotLoadedError, match=r"^unloaded$"):
            await world.vectors("dog")
        assert world.embedder.is_destroyed
        assert len(world.embedder.batches) == 1

    run(test)


def test_a_failure_that_follows_from_closing_has_its_reason() -> None:
    async def test(world: World) -> None:
        world.embedder.gate, world.embedder.error = asyncio.Event(), DeviceLostError("device")
        request = asyncio.ensure_future(world.vectors("dog"))
        await asyncio.sleep(0.01)
        world.model.close(ModelNotLoadedError("unloaded"))
        world.embedder.gate.set()
        with pytest.raises(ModelNotLoadedError, match="unloaded"):
            await request

    run(test)


def test_a_failure_of_the_device_leaves_the_model_usable() -> None:
    async def test(world: World) -> None:
        world.embedder.error = DeviceLostError("device")
        with pytest.raises(DeviceLostError, match="device"):
            await world.vectors("dog")
        world.embedder.error = None
        assert len(await world.vectors("dog")) == 1

    run(test)


@pytest.mark.parametrize(
    ("record", "model_type", "expected"),
    [({}, "bert", True), ({"model_type": 1}, "llama", True), ({"model_type": 0}, "llama", False)],
)
def test_which_models_make_embeddings(
    record: dict[str, Any], model_type: str, expected: bool
) -> None:
    made = ModelRecord.from_dict({"model": "m", "model_id": "m", **record})
    config = ChatConfig.from_json({**CONFIG, "model_type": model_type})
    assert is_embedding_model(made, config) is expected


class NumpyHost:
    """Loads embedders onto a NumPy device."""

    load_embedder = staticmethod(load_embedder)


async def load(device: NumpyDevice, folder: Path, **options: Any) -> EmbeddingModel:
    source = FolderSource(folder)
    config = ChatConfig.from_json(await source.read_json("mlc-chat-config.json"), chat_opts=options)
    reporter = LoadReporter(lambda: None, 1)
    checkpoint = await open_checkpoint(source)
    return await load_embedding_model(NumpyHost(), checkpoint, config, device, reporter)  # type: ignore[arg-type]


@pytest.mark.parametrize("max_batch_size", [2, 32])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_texts_get_the_vectors_of_sentence_transformers(
    pooling: str, max_batch_size: int, tmp_path: Path
) -> None:
    """Tokenizer, special tokens, encoder, pooling and normalisation against its formula."""
    fixture, device = load_encoder_fixture(TEXT_CASE), NumpyDevice()
    write_encoder_folder(fixture.case, tmp_path)

    async def main() -> np.ndarray:
        model = await load(
            device, tmp_path, pooling=pooling, normalize=True, max_batch_size=max_batch_size
        )
        found = await model.embed(EmbeddingRequest(inputs=TEXTS))
        model.close(ModelNotLoadedError("done"))
        return np.array(found.vectors)

    found = asyncio.run(main())
    np.testing.assert_allclose(found, fixture.vectors(pooling, True), atol=1e-6)
    assert device.live_buffers == []


@pytest.mark.parametrize("missing", ["tokenizer.json", "params_shard_0.bin"])
def test_a_load_that_fails_leaves_nothing(missing: str, tmp_path: Path) -> None:
    device = NumpyDevice()
    write_encoder_folder(load_encoder_fixture(TEXT_CASE).case, tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(MissingFileError, match=missing):
        asyncio.run(load(device, tmp_path))
    assert device.live_buffers == []
