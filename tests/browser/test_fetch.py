"""FetchSource in a worker: files over HTTP, and every way in which that fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engine_worker import EngineWorker
from tests.support.file_server import CONTENT, TEXT, FileServer, file_server


@pytest.fixture(scope="module")
def files() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


async def read(url: str, path: str) -> bytes:
    from py_engine.storage.fetch_browser import FetchSource

    data = await FetchSource(url).read_bytes(path)
    assert str(data.constructor.name) == "ArrayBuffer"
    return data.to_bytes()


async def failure(url: str, path: str, kind: str) -> list[str]:
    from py_engine.storage.fetch_browser import FetchSource

    source = FetchSource(url)
    readers = {"bytes": source.read_bytes, "text": source.read_text, "json": source.read_json}
    try:
        await readers[kind](path)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def test_file_arrives_whole(engine_worker: EngineWorker, files: FileServer) -> None:
    assert engine_worker.run(read, url=files.url, path="whole.bin") == CONTENT


def test_empty_file(engine_worker: EngineWorker, files: FileServer) -> None:
    assert engine_worker.run(read, url=files.url, path="empty.bin") == b""


def test_file_of_unknown_length(engine_worker: EngineWorker, files: FileServer) -> None:
    assert engine_worker.run(read, url=files.url, path="unannounced.bin") == CONTENT * 3


def test_compressed_file_that_grows(engine_worker: EngineWorker, files: FileServer) -> None:
    # Another site's page does not see Content-Encoding, only the compressed length.
    assert engine_worker.run(read, url=files.url, path="compressed.bin") == CONTENT


def test_progress_reaches_the_length(engine_worker: EngineWorker, files: FileServer) -> None:
    async def progress(url: str) -> list[int]:
        from py_engine.storage.fetch_browser import FetchSource

        seen: list[int] = []
        await FetchSource(url).read_bytes("whole.bin", seen.append)
        return seen

    seen = engine_worker.run(progress, url=files.url)
    assert seen == sorted(seen)
    assert seen[-1] == len(CONTENT)


def test_wasm_heap_does_not_hold_the_file(engine_worker: EngineWorker, files: FileServer) -> None:
    async def heap_growth(url: str) -> int:
        from pyodide_js import _module

        from py_engine.storage.fetch_browser import FetchSource

        before = _module.HEAPU8.length
        data = await FetchSource(url).read_bytes("large.bin")
        assert data.byteLength > 20_000_000
        return _module.HEAPU8.length - before

    assert engine_worker.run(heap_growth, url=files.url) < 2_000_000


def test_text_and_json(engine_worker: EngineWorker, files: FileServer) -> None:
    async def text(url: str) -> str:
        from py_engine.storage.fetch_browser import FetchSource

        return await FetchSource(url).read_text("text.txt")

    assert engine_worker.run(text, url=files.url) == TEXT


@pytest.mark.parametrize(
    ("path", "kind", "error", "message"),
    [
        ("none.bin", "bytes", "MissingFileError", "does not exist (HTTP 404)"),
        ("private.bin", "bytes", "NetworkError", "is not public (HTTP 401)"),
        ("overloaded.bin", "bytes", "NetworkError", "answered HTTP 503. Try again later"),
        ("truncated.bin", "bytes", "TruncatedFileError", f"of the {len(CONTENT)} bytes"),
        ("broken.bin", "bytes", "NetworkError", "the connection broke after"),
        ("foreign.bin", "bytes", "NetworkError", "must allow this site (CORS)"),
        ("page.json", "json", "ModelFileFormatError", "The server sent a web page instead"),
        (
            "text.txt",
            "json",
            "ModelFileFormatError",
            "is not valid JSON: Expecting value",
        ),
        ("latin.txt", "text", "ModelFileFormatError", "is not UTF-8 text"),
    ],
)
def test_failure_names_the_file(
    engine_worker: EngineWorker,
    files: FileServer,
    path: str,
    kind: str,
    error: str,
    message: str,
) -> None:
    name, text = engine_worker.run(failure, url=files.url, path=path, kind=kind)
    assert (name, message) == (error, message if message in text else text)
    assert text.startswith(f"{files.url}/{path} ") or text.startswith(f"{files.url}/{path}:")


def test_unreachable_server(engine_worker: EngineWorker) -> None:
    name, text = engine_worker.run(failure, url="http://127.0.0.1:9/", path="a.bin", kind="bytes")
    assert name == "NetworkError"
    assert "Check the network and the address" in text


def test_cancelling_aborts_the_request(engine_worker: EngineWorker, files: FileServer) -> None:
    async def cancel(url: str) -> list[str]:
        import asyncio

        from py_engine.storage.fetch_browser import FetchSource

        started = asyncio.Event()
        reading = asyncio.ensure_future(
            FetchSource(url).read_bytes("stalled.bin", lambda n: started.set())
        )
        await started.wait()
        reading.cancel()
        done, _ = await asyncio.wait([reading], timeout=10)
        return ["cancelled" if task.cancelled() else repr(task.exception()) for task in done]

    files.aborted.clear()
    assert engine_worker.run(cancel, url=files.url) == ["cancelled"]
    assert files.aborted.wait(timeout=10)


def test_relative_addresses(engine_worker: EngineWorker) -> None:
    def addresses() -> list[str]:
        from py_engine.storage.fetch_browser import FetchSource

        return [
            FetchSource("models/X", base_url="https://h.org/app/page.html").url,
            FetchSource("../X/", base_url="chrome-extension://abc/worker/w.mjs").url,
            FetchSource("https://huggingface.co/a/b", base_url="https://h.org/").url,
        ]

    assert engine_worker.run(addresses) == [
        "https://h.org/app/models/X/",
        "chrome-extension://abc/X/",
        "https://huggingface.co/a/b/resolve/main/",
    ]


def test_relative_address_is_the_workers_own(engine_worker: EngineWorker) -> None:
    def own() -> list[str]:
        import js

        from py_engine.storage.fetch_browser import FetchSource

        return [FetchSource("models/X").url, js.URL.new("models/X/", js.location.href).href]

    found, expected = engine_worker.run(own)
    assert found == expected


def test_model_list_is_in_the_worker(engine_worker: EngineWorker) -> None:
    def first_model() -> str:
        from py_engine.config import prebuilt_app_config

        return prebuilt_app_config.model_list[0].model

    assert engine_worker.run(first_model) == "models/Llama-Storyteller-7M-q4f16_1-MLC/"
