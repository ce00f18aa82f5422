"""The tokenizer in the browser: the wasm library gives what PyPI's package gives in CPython."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import tokenizers

from py_engine.tokenizer import Tokenizer
from py_engine.tokenizer.backend_native import NativeBackend
from py_engine.tokenizer.files import parse_tokenizer_json
from tests.browser.conftest import StartWorker
from tests.support.control_tokens import HOSTILE_TEXTS
from tests.support.engine_worker import EngineWorker, WorkerError
from tests.support.site_server import RecordingServer
from tests.support.tokenizer_files import SHAPES, STREAMING_SHAPES, TEXTS, tokenizer_json


async def encode_and_decode(json_text: str, texts: list[str], streams: bool) -> dict[str, Any]:
    from py_engine.tokenizer import tokenizer_from_json

    tokenizer = await tokenizer_from_json(json_text)
    encoded = [tokenizer.encode(text) for text in texts]
    size = tokenizer.vocab_size
    result = {
        "encoded": encoded,
        "decoded": [tokenizer.decode(ids, skip_special_tokens=False) for ids in encoded],
        "skipped": [tokenizer.decode(ids) for ids in encoded],
        "odd ids": [tokenizer.decode(range(start, start + 5)) for start in range(0, size + 5, 5)],
        "surrogate": tokenizer.encode("a\ud83db"),
    }
    if streams:
        detokenizers = [tokenizer.detokenizer() for _ in encoded]
        result["streamed"] = [
            "".join(map(each.put, ids)) + each.finish()
            for each, ids in zip(detokenizers, encoded, strict=True)
        ]
    tokenizer.destroy()
    return result


def expected(json_text: str, texts: list[str]) -> dict[str, Any]:
    library = tokenizers.Tokenizer.from_str(json_text)
    encoded = [library.encode(text, add_special_tokens=False).ids for text in texts]
    size = library.get_vocab_size()
    return {
        "encoded": encoded,
        "decoded": [library.decode(ids, skip_special_tokens=False) for ids in encoded],
        "skipped": [library.decode(ids) for ids in encoded],
        "odd ids": [library.decode(list(range(at, at + 5))) for at in range(0, size + 5, 5)],
        "surrogate": library.encode("a\ufffdb", add_special_tokens=False).ids,
    }


async def open_broken(json_text: str) -> str:
    from py_engine.errors import ModelFileFormatError
    from py_engine.tokenizer import tokenizer_from_json

    try:
        await tokenizer_from_json(json_text)
    except ModelFileFormatError as error:
        return str(error)
    return ""


def test_library_that_cannot_be_fetched(start_worker: StartWorker, server: RecordingServer) -> None:
    async def open_tokenizer(text: str) -> int:
        from py_engine.tokenizer import tokenizer_from_json

        tokenizer = await tokenizer_from_json(text)
        size = tokenizer.vocab_size
        tokenizer.destroy()
        return size

    worker, text = start_worker(server.url), tokenizer_json("gpt2")
    worker.run("1")
    file = "**/tokenizers/index.wasm*"
    worker.page.context.route(file, lambda route: route.fulfill(status=404))
    with pytest.raises(WorkerError, match=r"NetworkError: The tokenizers library .*404"):
        worker.run(open_tokenizer, text=text)
    worker.page.context.unroute(file)
    assert worker.run(open_tokenizer, text=text) > 256


@pytest.mark.parametrize("shape", SHAPES)
def test_browser_equals_cpython(engine_worker: EngineWorker, shape: str) -> None:
    text, texts, streams = tokenizer_json(shape), list(TEXTS), shape in STREAMING_SHAPES
    found = engine_worker.run(encode_and_decode, json_text=text, texts=texts, streams=streams)
    streamed = found.pop("streamed", found["skipped"])
    assert found == expected(text, texts)
    assert streamed == found["skipped"]


def test_file_that_the_library_refuses_is_an_error_and_the_next_one_works(
    engine_worker: EngineWorker,
) -> None:
    broken = '{"model": {"type": "Nonsense", "vocab": {"a": 1}}}'
    assert "cannot read it" in engine_worker.run(open_broken, json_text=broken)
    text, texts = tokenizer_json("gpt2"), ["The fox"]
    found = engine_worker.run(encode_and_decode, json_text=text, texts=texts, streams=False)
    assert found == expected(text, texts)


TEMPLATE = "<s>[INST]{{ messages[0].content }}<|im_end|></s>"


def rendered(tokenizer: Tokenizer, template: str, contents: list[str]) -> list[list[int]]:
    from py_engine.conversation.jinja_template import ChatTemplate
    from py_engine.conversation.renderer import PromptRenderer

    renderer = PromptRenderer(tokenizer, ChatTemplate({"default": template}), frozenset())
    messages = [[{"role": "user", "content": content}] for content in contents]
    return [renderer.render(each).token_ids for each in messages]


@pytest.mark.parametrize("shape", SHAPES)
def test_control_tokens_in_messages_give_the_same_ids(
    engine_worker: EngineWorker, shape: str
) -> None:
    text, contents = tokenizer_json(shape), list(HOSTILE_TEXTS)
    code = f"""
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
{inspect.getsource(rendered)}
rendered(await tokenizer_from_json(text), template, contents)
"""
    found = engine_worker.run(code, text=text, template=TEMPLATE, contents=contents)
    native = Tokenizer(parse_tokenizer_json(text, "tokenizer.json"), NativeBackend(text))
    assert found == rendered(native, TEMPLATE, contents)
