"""One model from everywhere: the hub, a folder that was picked, a slow host; checked, aborted.

Each load ends with the same greedy answer, so that it is the same weights.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.support.engine_worker import EngineWorker
from tests.support.faulty_files import FaultyFiles
from tests.support.faulty_server import FaultyServer, faulty_server
from tests.support.hub_server import TOKEN, HubServer, hub_server
from tests.support.site_server import RecordingServer

FOLDER = Path(__file__).parents[2] / "web" / "models" / "Llama-Storyteller-7M-q4f16_1-MLC"
FILES = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix != ".md"}
SHARD = "params_shard_0.bin"

HELPERS = """
import asyncio
import sys
import types

from py_engine import MLCEngine, list_models_in_cache
from py_engine.config import AppConfig
from py_engine.errors import MLCError

state = sys.modules.setdefault("test_state", types.ModuleType("test_state"))
if not hasattr(state, "engine"):
    state.engine = MLCEngine()
engine = state.engine
reports = []
engine.set_init_progress_callback(reports.append)

def configure(huggingface=None, **record):
    records = [{"model_id": "m", **record}] if record else []
    engine.set_app_config({"model_list": records, "huggingface": huggingface})

async def answer():
    reply = await engine.chat.completions.create(
        messages=[{"role": "user", "content": "Tell me a story about a fox."}],
        temperature=0, max_tokens=8,
    )
    return reply.choices[0].message.content

async def failure(awaitable):
    try:
        await awaitable
    except MLCError as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]
"""


@pytest.fixture(scope="module")
def worker(browser: Browser, session_server: RecordingServer) -> Iterator[EngineWorker]:
    """A worker with an engine and a storage of its own."""
    worker = EngineWorker(browser, session_server.url)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def expected(worker: EngineWorker) -> str:
    """What the site's own model answers."""
    found = run(
        worker, f'configure()\nawait engine.reload("models/{FOLDER.name}/")\nawait answer()'
    )
    assert len(found) > 10
    return str(found)


@pytest.fixture
def host() -> Iterator[FaultyServer]:
    """A static host of the model's files."""
    with faulty_server(FaultyFiles(FILES)) as server:
        yield server


@pytest.fixture
def hub(host: FaultyServer) -> Iterator[HubServer]:
    repositories = {"owner/model@v1": FILES, "gated/model@main": FILES}
    with hub_server(repositories, host.url) as server:
        yield server


def run(worker: EngineWorker, code: str, **values: Any) -> Any:
    return worker.run(HELPERS + textwrap.dedent(code), **values)


def sri(data: bytes) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(data).digest()).decode()}"


def test_repository_of_the_hub(
    worker: EngineWorker, expected: str, host: FaultyServer, hub: HubServer
) -> None:
    code = """
    configure({"endpoint": endpoint, "token": "hf_wrong"})
    found = [await failure(engine.reload("gated/model"))]
    configure({"endpoint": endpoint, "token": token})
    await engine.reload("gated/model")
    found.append(await answer())
    configure({"endpoint": endpoint})
    [*found, await failure(engine.reload("hf:owner/model@v2"))]
    """
    found = run(worker, code, endpoint=hub.url, token=TOKEN)
    assert found[0][0] == "AccessDeniedError"
    assert "the access token's account has not accepted its conditions" in found[0][1]
    assert found[1] == expected
    assert found[2] == [
        "RepositoryNotFoundError",
        f"{hub.url}/owner/model has no revision 'v2'. Give one of its branches, tags or commits.",
    ]
    assert {path[:11] for path, token in hub.asked if token} == {"/api/models", "/gated/mode"}
    assert SHARD in [asked[0] for asked in host.files.asked]


def test_folder_that_was_picked(worker: EngineWorker, expected: str) -> None:
    code = """
    import js
    from pyodide.ffi import to_js
    picked = [
        [path, js.File.new(js.Array.of(to_js(data)), path)] for path, data in files.items()
    ]
    configure()
    address = await engine.register_local_files("mine", picked)
    await engine.reload(address)
    [address, await answer()]
    """
    found = run(worker, code, files=FILES)
    assert found == ["local:mine", expected]


def test_hashes_of_the_record(worker: EngineWorker, host: FaultyServer) -> None:
    code = """
    from py_engine.config import AppConfig, ModelRecord
    from py_engine.storage.open_browser import BrowserSources

    async def read(path, integrity):
        record = ModelRecord.from_dict({"model": url, "model_id": "m", "integrity": integrity})
        source = await BrowserSources(url).open(record, AppConfig([]))
        return (await source.read_range(path, 0, 4)).to_bytes()

    found = [await read(shard, good), await read("mlc-chat-config.json", good)]
    found.append(await failure(read(shard, bad)))
    found.append(await read(shard, {**bad, "onFailure": "warn"}))
    configure(model=url, integrity={"config": bad["files"][shard]})
    [*found, await failure(engine.reload("m"))]
    """
    good = {
        "config": sri(FILES["mlc-chat-config.json"]),
        "files": {SHARD: sri(FILES[SHARD])},
    }
    bad = {"files": {SHARD: sri(b"another shard")}}
    found = run(worker, code, url=host.url, good=good, bad=bad, shard=SHARD)
    assert found[:2] == [FILES[SHARD][:4], FILES["mlc-chat-config.json"][:4]]
    assert found[2][0] == found[4][0] == "IntegrityError"
    assert found[2][1].startswith(f"{host.url}{SHARD} is not the file of the model's record")
    assert found[3] == FILES[SHARD][:4]
    # A refused file is forgotten: each of the two later reads asked the server again.
    assert [asked[0] for asked in host.files.asked].count(SHARD) >= 2


def test_aborted_downloads_leave_a_clean_engine_and_go_on(
    worker: EngineWorker, expected: str
) -> None:
    code = """
    async def abort(how):
        reports.clear()
        loading = asyncio.ensure_future(engine.reload(url))
        while not any(0 < report.loadedBytes < report.totalBytes for report in reports):
            await asyncio.sleep(0.02)
            assert not loading.done(), await failure(loading)
        if how == "cancel":
            loading.cancel()
        elif how == "unload":
            await engine.unload()
        else:
            await failure(engine.reload("no such model"))
        done, _ = await asyncio.wait([loading], timeout=10)
        state = "cancelled" if loading.cancelled() else repr(loading.exception())
        return [how, len(done), state, engine.model_id]

    configure()
    found = [await abort(how) for how in ("unload", "reload", "cancel")]
    reports.clear()
    await engine.reload(url)
    stored = {item.url: item.stored_bytes for item in await list_models_in_cache()}
    progress = [report.progress for report in reports]
    [found, await answer(), progress == sorted(progress), stored[url]]
    """
    with faulty_server(FaultyFiles(FILES), delay_s=0.01) as slow:
        found = run(worker, code, url=slow.url)
    assert found[0] == [
        ["unload", 1, "None", None],
        ["reload", 1, "None", None],
        ["cancel", 1, "cancelled", None],
    ]
    assert found[1:3] == [expected, True]
    assert found[3] >= len(FILES[SHARD])
