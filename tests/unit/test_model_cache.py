"""WebLLM's cache functions: what is checked and deleted, by an engine and through the proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from typing import Any

import pytest

from py_engine import (
    delete_chat_config_in_cache,
    delete_model_all_info_in_cache,
    delete_model_in_cache,
    delete_model_wasm_in_cache,
    has_model_in_cache,
    list_models_in_cache,
)
from py_engine.config import AppConfig, ModelRecord
from py_engine.engine import MLCEngine
from py_engine.errors import ConfigValueError, ModelNotFoundError
from py_engine.rpc.client import WebWorkerMLCEngine
from py_engine.rpc.handler import WebWorkerMLCEngineHandler
from tests.support.fake_host import FakeHost
from tests.support.faulty_files import FaultyFiles
from tests.support.memory_storage import (
    MemoryBlobs,
    MemoryTransport,
    OtherFiles,
    RemoteFiles,
    memory_storage,
)
from tests.support.worker_pair import JsonTransport

MLC, GGUF = "https://models.test/mlc/", "https://models.test/gguf/"
MLC_FILES: dict[str, bytes] = {
    "mlc-chat-config.json": b"{}",
    "tensor-cache.json": b"{}",
    "tokenizer.json": b"{}",
    "params_shard_0.bin": bytes(3000),
    "params_shard_1.bin": bytes(1500),
}
GGUF_FILES: dict[str, bytes] = {
    "x-Q4_K_M-00001-of-00002.gguf": bytes(1200),
    "x-Q4_K_M-00002-of-00002.gguf": bytes(700),
    "x-Q8_0.gguf": bytes(2000),
}
RECORDS = [
    ModelRecord(MLC, "mlc"),
    ModelRecord(MLC, "mlc-1k"),
    ModelRecord("gguf:Q4_K_M", "small"),
    ModelRecord("gguf/x-Q8_0.gguf", "large"),
    ModelRecord("https://models.test/other/", "other"),
    ModelRecord("local:mine", "picked"),
]
CONFIG = AppConfig(RECORDS)
PLACES = {"gguf:Q4_K_M": (GGUF, "", "Q4_K_M"), "gguf/x-Q8_0.gguf": (GGUF, "x-Q8_0.gguf")}


class Site:
    """A browser's storage, an engine that uses it, and what it has loaded so far."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobs()
        self.host = FakeHost()
        self.host.places = dict(PLACES)
        transport = MemoryTransport(FaultyFiles({}))
        self.webllm = OtherFiles({})
        self.host.storage = memory_storage(self.blobs, transport, other=self.webllm)
        self.engine: Any = MLCEngine({"app_config": CONFIG}, host=self.host)

    async def load(self, url: str, files: Mapping[str, bytes], weights: str = ".") -> None:
        """Store what loading does: all files, and the weights as what is wanted."""
        transport = MemoryTransport(FaultyFiles(dict(files)), base=url)
        storage = memory_storage(self.blobs, transport)
        source = storage.open(RemoteFiles(transport, url=url))
        for path in files:
            if path.endswith(".json"):
                await source.read_text(path)
        await source.download([p for p in files if weights in p and not p.endswith(".json")])

    async def stored(self) -> dict[str, set[str]]:
        assert self.host.storage is not None
        return {model.url: set(model.files) for model in await self.host.storage.models()}


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


def test_a_model_is_there_when_everything_is() -> None:
    async def test() -> None:
        site = Site()
        assert not await has_model_in_cache("mlc", engine=site.engine)
        await site.load(MLC, MLC_FILES)
        assert await has_model_in_cache("mlc", engine=site.engine) is True
        assert await has_model_in_cache("mlc-1k", engine=site.engine)
        assert not await has_model_in_cache("other", engine=site.engine)
        assert not await has_model_in_cache("picked", engine=site.engine)
        assert site.host.storage is not None
        for path in ("params_shard_1.bin", "tokenizer.json", "mlc-chat-config.json"):
            await site.host.storage.delete(MLC, [path])
            assert not await has_model_in_cache("mlc", engine=site.engine), path
            await site.load(MLC, MLC_FILES)
        assert await has_model_in_cache("mlc", engine=site.engine)

    run(test())


def test_a_model_that_webllm_stored_is_there() -> None:
    async def test() -> None:
        site = Site()
        index = json.dumps({"records": [{"dataPath": f"params_shard_{i}.bin"} for i in (0, 1)]})
        files = {f"{MLC}{path}": data for path, data in MLC_FILES.items()}
        site.webllm.files = {**files, f"{MLC}tensor-cache.json": index.encode()}
        assert await has_model_in_cache("mlc", engine=site.engine)
        shard = site.webllm.files.pop(f"{MLC}params_shard_1.bin")
        assert not await has_model_in_cache("mlc", engine=site.engine)
        site.webllm.files[f"{MLC}params_shard_1.bin"] = shard
        await delete_model_in_cache("mlc", engine=site.engine)
        assert [*site.webllm.files] == [f"{MLC}mlc-chat-config.json"]
        assert not await has_model_in_cache("mlc", engine=site.engine)
        await delete_chat_config_in_cache("mlc", engine=site.engine)
        assert site.webllm.files == {}

    run(test())


def test_deleting_everything_in_turn_leaves_nothing() -> None:
    async def test() -> None:
        site = Site()
        await site.load(MLC, MLC_FILES)
        await delete_model_in_cache("mlc", engine=site.engine)
        await delete_chat_config_in_cache("mlc", engine=site.engine)
        assert await list_models_in_cache(engine=site.engine) == []
        assert site.blobs.data == {}

    run(test())


def test_deleting_leaves_what_it_is_not_about() -> None:
    async def test() -> None:
        site = Site()
        await site.load(MLC, MLC_FILES)
        await delete_model_wasm_in_cache("mlc", engine=site.engine)
        assert await has_model_in_cache("mlc", engine=site.engine)
        await delete_chat_config_in_cache("mlc", engine=site.engine)
        assert (await site.stored())[MLC] == set(MLC_FILES) - {"mlc-chat-config.json"}
        await site.load(MLC, MLC_FILES)
        await delete_model_in_cache("mlc", engine=site.engine)
        assert (await site.stored())[MLC] == {"mlc-chat-config.json"}
        await site.load(MLC, MLC_FILES)
        await delete_model_all_info_in_cache("mlc", engine=site.engine)
        assert await site.stored() == {}
        assert site.blobs.data == {}
        for delete in (delete_model_in_cache, delete_model_all_info_in_cache):
            await delete("mlc", engine=site.engine)
            await delete("picked", engine=site.engine)

    run(test())


def test_gguf_files_of_one_repository_are_apart() -> None:
    async def test() -> None:
        site = Site()
        await site.load(GGUF, GGUF_FILES, weights="Q4_K_M")
        assert await has_model_in_cache("small", engine=site.engine)
        assert not await has_model_in_cache("large", engine=site.engine)
        await site.load(GGUF, GGUF_FILES, weights="Q8_0")
        assert await has_model_in_cache("small", engine=site.engine)
        assert await has_model_in_cache("large", engine=site.engine)
        await delete_model_all_info_in_cache("small", engine=site.engine)
        assert not await has_model_in_cache("small", engine=site.engine)
        assert await has_model_in_cache("large", engine=site.engine)
        assert (await site.stored())[GGUF] == {"x-Q8_0.gguf"}
        await delete_model_all_info_in_cache("large", engine=site.engine)
        assert site.blobs.data == {}

    run(test())


def test_a_missing_part_is_missed() -> None:
    async def test() -> None:
        site = Site()
        await site.load(GGUF, GGUF_FILES, weights="Q4_K_M")
        assert site.host.storage is not None
        await site.host.storage.delete(GGUF, ["x-Q4_K_M-00002-of-00002.gguf"])
        assert not await has_model_in_cache("small", engine=site.engine)

    run(test())


def test_list_has_ids_and_sizes_of_all_models() -> None:
    async def test() -> None:
        site = Site()
        assert await list_models_in_cache(engine=site.engine) == []
        await site.load(MLC, MLC_FILES)
        await site.load(GGUF, GGUF_FILES, weights="Q8_0")
        await site.load("https://models.test/unknown/", {"a.bin": bytes(10)})
        gguf, mlc, unknown = await list_models_in_cache(engine=site.engine)
        assert (mlc.url, mlc.model_ids, mlc.is_complete) == (MLC, ["mlc", "mlc-1k"], True)
        assert mlc.stored_bytes == mlc.total_bytes == sum(map(len, MLC_FILES.values()))
        assert mlc.files["params_shard_1.bin"] == 1500
        assert gguf.model_ids == ["large"]
        assert (unknown.model_ids, unknown.stored_bytes) == ([], 10)

    run(test())


def test_other_records_may_be_given_as_an_object_or_a_mapping() -> None:
    async def test() -> None:
        site = Site()
        await site.load(MLC, MLC_FILES)
        plain = {"model_list": [{"model": MLC, "model_id": "mine"}]}
        assert await has_model_in_cache("mine", plain, engine=site.engine)
        assert await has_model_in_cache("mine", AppConfig.from_dict(plain), engine=site.engine)
        with pytest.raises(ModelNotFoundError, match="'mine'"):
            await has_model_in_cache("mine", engine=site.engine)
        assert await has_model_in_cache(MLC, engine=site.engine)  # an address needs no record

    run(test())


def test_the_proxy_asks_its_worker() -> None:
    async def test() -> None:
        site = Site()
        handler = WebWorkerMLCEngineHandler(site.engine, lambda message: transport.reply(message))
        transport = JsonTransport(handler.on_message)
        proxy: Any = WebWorkerMLCEngine(transport)
        await site.load(MLC, MLC_FILES)
        assert await has_model_in_cache("mlc", engine=proxy)
        assert (await list_models_in_cache(engine=proxy))[0].model_ids == ["mlc", "mlc-1k"]
        plain = {"model_list": [{"model": MLC, "model_id": "mine"}]}
        await delete_model_in_cache("mine", AppConfig.from_dict(plain), engine=proxy)
        assert not await has_model_in_cache("mlc", engine=proxy)
        with pytest.raises(ModelNotFoundError):
            await delete_model_in_cache("unheard", engine=proxy)
        assert json.dumps(transport.received)

    run(test())


@pytest.mark.parametrize(("action", "model_id"), [("burn", "mlc"), ("has_model", None)])
def test_unknown_actions_are_named(action: str, model_id: str | None) -> None:
    async def test() -> None:
        with pytest.raises(ConfigValueError, match=rf"action is '{action}'.*delete_model_all_info"):
            await Site().engine.model_cache(action, model_id)

    run(test())
