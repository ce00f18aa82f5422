"""Models of files that a user picked: Files, lists of them, and folders, in the engine's worker."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from tests.support.engine_worker import EngineWorker

HELPERS = """
import js
from py_engine.storage.open_browser import BrowserSources
from py_engine.config import AppConfig, ModelRecord
from py_engine.errors import MLCError

def new_file(name, text):
    return js.File.new(js.Array.of(text), name)

async def opened(picked, name="mine"):
    sources = BrowserSources("https://example.org/")
    assert await sources.register_local_files(name, picked) == f"local:{name}"
    return await sources.open(ModelRecord(f"local:{name}", "m"), AppConfig([]))

async def seen(source):
    return [source.url, source.entry, {p: i.size for p, i in (await source.list_files()).items()}]

async def failure(awaitable):
    try:
        await awaitable
    except MLCError as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]
"""


def run(worker: EngineWorker, code: str) -> Any:
    return worker.run(HELPERS + textwrap.dedent(code))


def test_one_gguf_file(engine_worker: EngineWorker) -> None:
    code = """
    file = new_file("x.gguf", "GGUF0123456789")
    source, progress = await opened(file, "my model"), []
    part = await source.read_range("x.gguf", 4, 7, progress.append)
    both = await opened([new_file("LICENSE", "free"), file])
    [
        await seen(source), part.to_bytes(), progress,
        (await source.read_bytes("x.gguf")).byteLength, both.entry,
    ]
    """
    assert run(engine_worker, code) == [
        ["local:my model/", "x.gguf", {"x.gguf": 14}],
        b"012",
        [3],
        14,
        "x.gguf",
    ]


def test_a_folder_handle_is_walked(engine_worker: EngineWorker) -> None:
    code = """
    root = await js.navigator.storage.getDirectory()
    folder = await root.getDirectoryHandle("picked model", create=True)
    inner = await folder.getDirectoryHandle("sub", create=True)
    for place, name, text in (
        (folder, "config.json", '{"a": "ü"}'), (folder, ".hidden", "x"), (inner, "x.bin", "012")
    ):
        handle = await place.getFileHandle(name, create=True)
        stream = await handle.createWritable()
        await stream.write(text)
        await stream.close()
    source = await opened(folder)
    found = [await seen(source), await source.read_json("config.json")]
    await inner.removeEntry("x.bin")
    found.append(await failure(source.read_bytes("sub/x.bin")))
    found.append(await failure(opened(await folder.getDirectoryHandle("sub"))))
    await root.removeEntry("picked model", recursive=True)
    found
    """
    listed, config, removed, empty = run(engine_worker, code)
    assert listed == ["local:mine/", "", {"config.json": 11, "sub/x.bin": 3}]
    assert config == {"a": "ü"}
    assert removed[0] == "ModelFileError"
    assert removed[1].startswith("local:mine/sub/x.bin cannot be read any more (NotFoundError")
    assert empty == [
        "MissingFileError",
        "local:mine: the folder that was picked has no files. Pick the one with the model's "
        "config.json or mlc-chat-config.json, or a .gguf file.",
    ]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ('source.read_bytes("b.bin")', "MissingFileError", "is not among the files that were"),
        ('source.read_range("a.txt", 1, 9)', "TruncatedFileError", "a.txt has 3 bytes, but bytes"),
        ('source.read_json("a.txt")', "ModelFileFormatError", "local:mine/a.txt is not valid JSON"),
    ],
)
def test_wrong_files(engine_worker: EngineWorker, call: str, error: str, message: str) -> None:
    code = f'source = await opened(new_file("a.txt", "abc"))\nawait failure({call})'
    found = run(engine_worker, code)
    assert (found[0], message in found[1]) == (error, True)


def test_a_name_must_be_registered_first(engine_worker: EngineWorker) -> None:
    code = """
    await failure(
        BrowserSources("https://example.org/").open(ModelRecord("local:x", "m"), AppConfig([]))
    )
    """
    error, text = run(engine_worker, code)
    assert error == "MissingFileError"
    assert "call engine.register_local_files('x', files) first" in text
