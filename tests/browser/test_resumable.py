"""Resumable generations in Chromium: the worker is ended in mid-stream, and another one goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.conftest import RecordingServer
from tests.support.engine_worker import EngineWorker, WorkerError
from tests.support.extent import INTERPRETERS

HELPERS = '''
import sys
import types

from py_engine import config
from py_engine.engine import create_mlc_engine

engine = await create_mlc_engine(config.prebuilt_app_config.model_list[0].model_id)
streams = []


async def ask(session=None, resumable=None, **fields):
    """Return the response to a story's request, resumable where it names a session."""
    messages = [{"role": "user", "content": "Tell me a story about a brave little fox."}]
    if session is not None:
        how = {"enabled": True, "sessionId": session} | (resumable or {})
        fields["extra_body"] = {"resumable": how}
    return await engine.chat.completions.create(messages=messages, max_tokens=24, **fields)


async def text_of(stream, n_chunks=10_000):
    """Return what the next chunks of a stream say."""
    text = ""
    while n_chunks:
        n_chunks -= 1
        chunk = await anext(stream, None)
        if chunk is None:
            break
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    return text


def told(completion):
    """Return what a reply says and counts."""
    usage = completion["usage"]
    choice = completion["choices"][0]
    return [choice, usage["completion_tokens"], usage["prompt_tokens"]]


helpers = types.ModuleType("resumable_helpers")
names = dict(engine=engine, ask=ask, text_of=text_of, told=told, streams=streams)
helpers.__dict__.update(names)
sys.modules["resumable_helpers"] = helpers
'''

GREEDY = {"temperature": 0, "logprobs": True}
SEEDED = {"temperature": 1.0, "seed": 2**63 + 7, "frequency_penalty": 0.5, "logprobs": True}
N_CHUNKS = 9


async def whole(fields: dict[str, Any]) -> list[Any]:
    """Return the reply that nothing interrupts and nothing records."""
    from resumable_helpers import ask, told

    return told((await ask(**fields)).to_dict())


async def begin(
    session: str, n_chunks: int, fields: dict[str, Any], resumable: dict[str, Any]
) -> str:
    """Read some chunks of a generation, which then waits for the next to be asked for."""
    from resumable_helpers import ask, streams, text_of

    streams.append(await ask(session, resumable, stream=True, **fields))
    return await text_of(streams[-1], n_chunks)


async def close() -> None:
    """Drop the generation that was begun."""
    from resumable_helpers import streams

    await streams.pop().aclose()


async def listed(session: str) -> list[Any]:
    """Return what the list tells of a session."""
    from resumable_helpers import engine

    probes = await engine.list_resumable_sessions()
    return [probe.to_dict() for probe in probes if probe.sessionId == session]


async def stored(session: str) -> str:
    """Return the stored text of a session."""
    from resumable_helpers import engine

    return (await engine.resume_chat_completion(session)).recoveredText


async def streamed(session: str) -> str:
    """Go on with a session; return what follows the stored text."""
    from resumable_helpers import engine, text_of

    stream = await engine.resume_chat_completion(session, True, True)
    return await text_of(stream)


async def ended(session: str) -> list[Any]:
    """Go on with a session to its end; return the result, and what its completion tells."""
    from resumable_helpers import engine, told

    result = (await engine.resume_chat_completion(session, True)).to_dict()
    return [result, told(result["completion"])]


async def delete(session: str) -> None:
    """Delete a session."""
    from resumable_helpers import engine

    await engine.delete_resumable_session(session)


@pytest.fixture(scope="module")
def tab(browser: Browser, session_server: RecordingServer) -> Iterator[EngineWorker]:
    """A tab whose worker the tests end."""
    tab = EngineWorker(browser, session_server.url)
    tab.run(HELPERS)
    yield tab
    tab.close()


def restart(tab: EngineWorker) -> None:
    """End the worker of a tab, whatever it does, and load the model in a new one."""
    tab.reboot()
    tab.run(HELPERS)


@pytest.mark.parametrize("fields", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_ended_worker(tab: EngineWorker, fields: dict[str, Any]) -> None:
    choice, n_tokens, n_prompt = wanted = tab.run(whole, fields=fields)
    text = choice["message"]["content"]

    begun = tab.run(begin, session="a", n_chunks=N_CHUNKS, fields=fields, resumable={})
    restart(tab)
    (probe,) = tab.run(listed, session="a")
    assert (probe["resumable"], probe["reason"]) == (True, "generation incomplete")
    assert probe["emittedTokens"] == N_CHUNKS
    base = tab.run(stored, session="a")
    assert base.startswith(begun)
    assert base + tab.run(streamed, session="a") == text
    assert tab.run(stored, session="a") == text

    relaxed = {"durabilityMode": "relaxed", "strictPersistence": True}
    tab.run(begin, session="b", n_chunks=N_CHUNKS, fields=fields, resumable=relaxed)
    restart(tab)
    result, told = tab.run(ended, session="b")
    assert told == wanted
    assert result["recoveredText"] == text
    assert result["recoveryMode"] == "token_replay"
    assert 0 < result["replayedTokens"] <= N_CHUNKS
    assert result["processedSeqLen"] == n_prompt + n_tokens
    for session in ("a", "b"):
        tab.run(delete, session=session)
        assert tab.run(listed, session=session) == []


def test_worker_ended_while_it_generates(tab: EngineWorker) -> None:
    async def begin_and_hang(fields: dict[str, Any]) -> bool:
        import asyncio

        from resumable_helpers import ask, engine

        def hang() -> None:
            while True:
                pass

        n_whole = len(await engine.get_message())  # of the same reply, which was just given
        asking = asyncio.ensure_future(ask("free", **fields))
        while not asking.done() and not 0 < len(await engine.get_message()) < n_whole:
            await asyncio.sleep(0)
        # Once this is answered, so that the reply is not whole when the worker is ended.
        asyncio.get_running_loop().call_later(0.01, hang)
        return asking.done()

    choice, *_ = wanted = tab.run(whole, fields=SEEDED)
    assert not tab.run(begin_and_hang, fields=SEEDED)
    restart(tab)
    result, told = tab.run(ended, session="free")
    assert told == wanted
    assert result["recoveredText"] == choice["message"]["content"]
    tab.run(delete, session="free")


def test_damaged_journal(tab: EngineWorker) -> None:
    async def damage(session: str) -> int:
        import js

        folder = await js.navigator.storage.getDirectory()
        for name in ("webllm-resume", "sessions", session):
            folder = await folder.getDirectoryHandle(name)
        access = await (await folder.getFileHandle("journal.bin")).createSyncAccessHandle()
        size = access.getSize()
        access.write(js.Uint8Array.of(255, 255, 255), at=size - 200)
        access.write(js.Uint8Array.new(33), at=size)
        access.close()
        return size

    wanted = tab.run(whole, fields=SEEDED)
    tab.run(begin, session="damaged", n_chunks=N_CHUNKS, fields=SEEDED, resumable={})
    restart(tab)
    tab.run(damage, session="damaged")
    (probe,) = tab.run(listed, session="damaged")
    assert probe["resumable"]
    assert "the journal's end is lost" in probe["reason"]
    assert 0 < probe["emittedTokens"] < N_CHUNKS
    assert tab.run(ended, session="damaged")[1] == wanted
    assert tab.run(listed, session="damaged")[0]["reason"] == "generation finished"
    tab.run(delete, session="damaged")


def test_two_tabs(browser: Browser, tab: EngineWorker, session_server: RecordingServer) -> None:
    choice, *_ = tab.run(whole, fields=GREEDY)
    other = EngineWorker(browser, session_server.url, neighbour=tab)
    other.run(HELPERS)
    begun = {"session": "c", "n_chunks": N_CHUNKS, "fields": GREEDY, "resumable": {}}
    other.run(begin, **begun)
    assert tab.run(listed, session="c")[0]["reason"] == "generation is running"
    active = "ResumableSessionActiveError: .*'c' belongs to a generation that is running"
    for refused in (stored, streamed, ended, delete):
        with pytest.raises(WorkerError, match=active):
            tab.run(refused, session="c")
    with pytest.raises(WorkerError, match=active):
        tab.run(begin, **begun)
    other.close()
    while not tab.run(listed, session="c")[0]["resumable"]:
        pass  # the lock of the closed tab is free in a moment
    base = tab.run(stored, session="c")
    assert base + tab.run(streamed, session="c") == choice["message"]["content"]
    with pytest.raises(WorkerError, match=r"ResumableSessionExistsError: .*'c' is there already"):
        tab.run(begin, **begun)
    tab.run(delete, session="c")


def test_without_access_handles(tab: EngineWorker) -> None:
    """As in service workers and on the main thread."""

    def without_access_handles() -> None:
        import js

        js.Reflect.deleteProperty(js.globalThis, "FileSystemSyncAccessHandle")

    wanted = tab.run(whole, fields=GREEDY)
    tab.run(without_access_handles)
    tab.run(begin, session="d", n_chunks=N_CHUNKS, fields=GREEDY, resumable={})
    restart(tab)
    assert tab.run(listed, session="d")[0]["emittedTokens"] == N_CHUNKS
    tab.run(without_access_handles)
    assert tab.run(ended, session="d")[1] == wanted
    tab.run(delete, session="d")
    restart(tab)


def test_browser_without_locks(tab: EngineWorker) -> None:
    def without_locks() -> None:
        import js

        js.Object.defineProperty(js.navigator, "locks", js.JSON.parse('{"value": null}'))

    tab.run(without_locks)
    strict = {"strictPersistence": True}
    with pytest.raises(WorkerError, match=r"CrossContextLockUnavailableError: .* no Web Locks"):
        tab.run(begin, session="e", n_chunks=1, fields=GREEDY, resumable=strict)
    assert tab.run(begin, session="e", n_chunks=99, fields=GREEDY, resumable={})
    restart(tab)


def test_storage_that_becomes_full(tab: EngineWorker) -> None:
    """As Chromium tells it: by what `write` returns."""

    def fill_up() -> None:
        import js
        from pyodide.ffi import create_proxy

        js.FileSystemSyncAccessHandle.prototype.write = create_proxy(lambda *_: -1)

    async def read_on() -> str:
        from resumable_helpers import streams, text_of

        return await text_of(streams[-1])

    choice, *_ = wanted = tab.run(whole, fields=GREEDY)
    text = tab.run(begin, session="g", n_chunks=3, fields=GREEDY, resumable={})
    tab.run(fill_up)
    assert text + tab.run(read_on) == choice["message"]["content"]
    (probe,) = tab.run(listed, session="g")
    assert (probe["resumable"], probe["emittedTokens"]) == (True, 3)
    restart(tab)
    assert tab.run(ended, session="g")[1] == wanted
    strict = {"strictPersistence": True}
    tab.run(begin, session="h", n_chunks=3, fields=GREEDY, resumable=strict)
    tab.run(fill_up)
    with pytest.raises(WorkerError, match=r"StorageFullError: .*not all of a record"):
        tab.run(read_on)
    restart(tab)


def test_storage_without_room(tab: EngineWorker, session_server: RecordingServer) -> None:
    """Chromium leaves calls unanswered then; two seconds are enough to tell."""

    def wait_less() -> None:
        from py_engine.resumable import files_browser

        files_browser._ANSWER_S = 2

    tab.run(wait_less)
    devtools = tab.page.context.new_cdp_session(tab.page)
    origin = {"origin": session_server.url}
    choice, *_ = tab.run(whole, fields=GREEDY)
    devtools.send("Storage.overrideQuotaForOrigin", {**origin, "quotaSize": 1})
    strict = {"strictPersistence": True}
    with pytest.raises(WorkerError, match="StorageFullError"):
        tab.run(begin, session="f", n_chunks=1, fields=GREEDY, resumable=strict)
    text = tab.run(begin, session="f", n_chunks=99, fields=GREEDY, resumable={})
    assert text == choice["message"]["content"]
    devtools.send("Storage.overrideQuotaForOrigin", origin)
    assert tab.run(listed, session="f") == []


SCRIPT = "tests/browser/pages/resumable_page.py"
CALL = """(args) => Promise.race([
    call(...args), new Promise((_, fail) => setTimeout(fail, 240000, 'no answer in 240 s'))])"""


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_closed_page(browser: Browser, session_server: RecordingServer, interpreter: str) -> None:
    """Through the proxy, on MicroPython and Pyodide."""
    context = browser.new_context(base_url=session_server.url)

    def opened() -> Page:
        page = context.new_page()
        page.goto(f"/python.html?interpreter={interpreter}&script={SCRIPT}")
        page.wait_for_function("globalThis.call !== undefined", timeout=120_000)
        page.evaluate(CALL, ["load"])
        return page

    first = opened()
    wanted = first.evaluate(CALL, ["whole"])
    assert wanted.startswith(first.evaluate(CALL, ["begin", N_CHUNKS]))
    second = opened()
    assert second.evaluate(CALL, ["error_of_second"]) == "ResumableSessionActiveError"
    first.close()
    text = ""
    while not text:  # the lock of the closed page is free in a moment
        text = second.evaluate(CALL, ["resume"])
    assert text == wanted
    told = "generation finished, text_only, generation finished, 0"
    assert second.evaluate(CALL, ["finished"]) == told
    context.close()
