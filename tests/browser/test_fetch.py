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


async def ranges(url: str, path: str, cuts: list[list[int]]) -> list[object]:
    from py_engine.storage.fetch_browser import FetchSource

    source = FetchSource(url)
    found: list[object] = [source.accepts_ranges]
    for begin, end in cuts:
        seen: list[int] = []
        data = await source.read_range(path, begin, end, seen.append)
        assert (seen[-1] if seen else 0) == data.byteLength == end - begin
        found.append(data.to_bytes())
    return [*found, source.accepts_ranges, await source.size(path)]


CUTS = [[0, 1], [5, 5], [300, 700_001], [len(CONTENT) - 3, len(CONTENT)]]


@pytest.mark.parametrize(("path", "accepts"), [("ranged.bin", True), ("whole.bin", False)])
def test_ranges_and_sizes(
    engine_worker: EngineWorker, files: FileServer, path: str, accepts: bool
) -> None:
    found = engine_worker.run(ranges, url=files.url, path=path, cuts=CUTS)
    parts = [CONTENT[begin:end] for begin, end in CUTS]
    assert found == [None, *parts, accepts, len(CONTENT)]


def test_sizes_of_odd_files(engine_worker: EngineWorker, files: FileServer) -> None:
    async def sizes(url: str) -> list[object]:
        from py_engine.errors import MLCError
        from py_engine.storage.fetch_browser import FetchSource

        found: list[object] = []
        for path in ("empty.bin", "none.bin", "unannounced.bin"):
            try:
                found.append(await FetchSource(url).size(path))
            except MLCError as error:
                found.append([type(error).__name__, str(error)])
        return found

    empty, missing, unannounced = engine_worker.run(sizes, url=files.url)
    assert empty == 0
    assert missing[0] == "MissingFileError"
    assert unannounced[0] == "NetworkError"
    assert "does not say how long the file is" in unannounced[1]


@pytest.mark.parametrize(
    ("path", "begin", "end", "message"),
    [
        ("ranged.bin", len(CONTENT), len(CONTENT) + 9, "is shorter than its index says (HTTP 416)"),
        ("ranged.bin", len(CONTENT) - 4, len(CONTENT) + 9, "ended after 4 of the 13 bytes"),
        ("whole.bin", len(CONTENT) - 4, len(CONTENT) + 9, "ended after 4 of the 13 bytes"),
        ("short.bin", 0, 9, "ended after 5 of the 9 bytes"),
    ],
)
def test_ranges_past_the_end(
    engine_worker: EngineWorker,
    files: FileServer,
    path: str,
    begin: int,
    end: int,
    message: str,
) -> None:
    async def past(url: str, path: str, begin: int, end: int) -> str:
        from py_engine.errors import TruncatedFileError
        from py_engine.storage.fetch_browser import FetchSource

        try:
            await FetchSource(url).read_range(path, begin, end)
        except TruncatedFileError as error:
            return str(error)
        return "nothing"

    assert message in engine_worker.run(past, url=files.url, path=path, begin=begin, end=end)


def test_busy_server_tells_when_to_come_back(
    engine_worker: EngineWorker, files: FileServer
) -> None:
    async def wait(url: str) -> list[float]:
        from py_engine.errors import NetworkError
        from py_engine.storage.fetch_browser import FetchSource

        try:
            await FetchSource(url).read_bytes("overloaded.bin")
        except NetworkError as error:
            return [error.status, error.retry_after_s]
        return []

    assert engine_worker.run(wait, url=files.url) == [503, 9.0]


def test_paths_stay_in_the_folder(engine_worker: EngineWorker, files: FileServer) -> None:
    async def leave(url: str) -> list[str]:
        from py_engine.errors import MissingFileError
        from py_engine.storage.fetch_browser import FetchSource

        refused = []
        for path in ("../whole.bin", "//example.org/x", "/whole.bin"):
            try:
                await FetchSource(f"{url}/sub").read_bytes(path)
            except MissingFileError as error:
                refused.append(str(error).partition(" is not in the model's folder")[0])
        return refused

    found = engine_worker.run(leave, url=files.url)
    assert found == ["'../whole.bin'", "'//example.org/x'", "'/whole.bin'"]


def test_bare_mirror_of_the_hub(engine_worker: EngineWorker) -> None:
    async def mirrored(endpoint: str) -> list[object]:
        from py_engine.config import HuggingFaceConfig
        from py_engine.errors import MLCError
        from py_engine.storage.fetch_browser import FetchSource

        config = HuggingFaceConfig(endpoint, "files/{repo}/{revision}/")
        source = FetchSource("hf:owner/name@v1/sub", huggingface=config)
        found: list[object] = [await source.list_files(), await source.read_text("a.txt")]
        gguf = FetchSource("hf:owner/name:Q4_0", huggingface=config)
        try:
            gguf.choose_entry(await gguf.list_files() or {})
        except MLCError as error:
            found.append(str(error))
        return found

    with file_server({"files/owner/name/v1/sub/a.txt": b"mirrored"}) as mirror:
        found = engine_worker.run(mirrored, endpoint=mirror.url)
    assert found[:2] == [None, "mirrored"]
    assert "has no GGUF file of the quantisation 'Q4_0', but none at all" in found[2]


def test_text_and_json(engine_worker: EngineWorker, files: FileServer) -> None:
    async def text(url: str) -> str:
        from py_engine.storage.fetch_browser import FetchSource

        return await FetchSource(url).read_text("text.txt")

    assert engine_worker.run(text, url=files.url) == TEXT


@pytest.mark.parametrize(
    ("path", "kind", "error", "message"),
    [
        ("none.bin", "bytes", "MissingFileError", "does not exist (HTTP 404)"),
        ("private.bin", "bytes", "AccessDeniedError", "is not public (HTTP 401)"),
        ("overloaded.bin", "bytes", "NetworkError", "answered HTTP 503. Try again later"),
        ("truncated.bin", "bytes", "TruncatedFileError", f"of the {len(CONTENT)} bytes"),
        ("broken.bin", "bytes", "NetworkError", "the connection broke after"),
        ("foreign.bin", "bytes", "CrossOriginError", "header Access-Control-Allow-Origin"),
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
