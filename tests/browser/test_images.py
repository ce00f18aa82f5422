"""Chats with images in the engine's worker: OpenAI's request with a data URL, and image objects."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from py_engine.models.base import SamplingParams
from tests.conformance.running import load_folder_on_numpy
from tests.conformance.vision_recipe import (
    SOFT,
    Pixels,
    host_image,
    load_vision_fixture,
    make_pixels,
    write_vision_folder,
)
from tests.support.engine_worker import EngineWorker
from tests.support.numpy_device import NumpyDevice

PATH = "test-models/vision"
IMAGE_TOKENS = ("<image_soft_token>", "<start_of_image>", "<end_of_image>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}<start_of_image>"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'model\n' }}{% endif %}"
)


def make_tokenizer() -> Tokenizer:
    """Return one with a token for each byte, and those of images at the ids of the model's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    filled = [*letters, *(f"<unused{i}>" for i in range(SOFT - len(letters)))]
    vocabulary = {token: index for index, token in enumerate(filled)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [*IMAGE_TOKENS, "<bos>", "<eos>", *(f"<unused{i}>" for i in range(300, 305))]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer


def png(pixels: Pixels) -> bytes:
    """Return an image as a PNG file."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def data_url(pixels: Pixels) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


@pytest.fixture(scope="module")
def folder(models_folder: Path) -> Path:
    folder = models_folder / "vision"
    folder.mkdir()
    write_vision_folder(load_vision_fixture(), folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "chat_template": TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


async def _chat(address: str, images: list[str]) -> dict[str, Any]:
    from py_engine import MLCEngine
    from py_engine.errors import MLCError

    def user(text: str, url: Any, **more: str) -> dict[str, Any]:
        parts = [
            {"type": "image_url", "image_url": {"url": url, **more}},
            {"type": "text", "text": text},
        ]
        return {"role": "user", "content": parts}

    engine = MLCEngine()
    await engine.reload(address, {"prefill_chunk_size": 48})
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}

    async def ask(*messages: dict[str, Any]) -> list[Any]:
        reply = await engine.chat.completions.create(messages=list(messages), **options)
        usage = reply.usage
        cached = usage.prompt_tokens_details.cached_tokens
        return [reply.choices[0].message.content, usage.prompt_tokens, cached]

    async def failure(*messages: dict[str, Any]) -> str:
        try:
            await ask(*messages)
        except MLCError as error:
            return type(error).__name__
        return "nothing"

    try:
        first = user("What is it?", images[0], detail="low")
        one = await ask(first)
        answer = {"role": "assistant", "content": one[0]}
        second = await ask(first, answer, {"role": "user", "content": "Sure?"})
        other = await ask(user("What is it?", images[1]))
        vision = next(iter(engine._models._models.values())).vision
        n_encoded = vision.n_encoded
        again = await ask(first)
        failures = [
            await failure(user("x", "data:image/png;base64,AAAA")),
            await failure(user("x", "https://127.0.0.1:1/none.png")),
            await failure(user("x", "file:///x.png")),
            await failure(user("x", images[0], detail="best")),
            await failure(user("x", 7)),
            await failure({"role": "user", "content": user("x", images[0])["content"] * 30}),
        ]
    finally:
        await engine.unload()
    return {
        "one": one,
        "second": second,
        "other": other,
        "again": again,
        "n_encoded": n_encoded,
        "n_encoded_again": vision.n_encoded,
        "failures": failures,
    }


@pytest.fixture(scope="module")
def chat(engine_worker: EngineWorker, folder: Path) -> dict[str, Any]:
    urls = [data_url(pixels) for pixels in make_pixels()]
    found: dict[str, Any] = engine_worker.run(_chat, address=f"{PATH}/", images=urls)
    return found


def expected(folder: Path, image: Pixels) -> tuple[str, int]:
    """Return the reply and the number of the prompt's tokens, computed in NumPy."""
    tokenizer = make_tokenizer()
    soft, begin, end = IMAGE_TOKENS
    sequence = f"\n\n{begin}{soft * 16}{end}\n\n"  # transformers' Gemma3Processor
    ids = tokenizer.encode(f"<bos>user\n{sequence}What is it?\nmodel\n").ids

    async def run() -> list[int]:
        model = await load_folder_on_numpy(folder, NumpyDevice(), takes_images=True)
        assert model.vision is not None
        held = model.vision.hold(host_image(image))
        rows = iter(held.ids)
        model.start(SamplingParams(temperature=0))
        await model.prefill([next(rows) if i == SOFT else i for i in ids])
        tokens = [(await model.sample()).token_id]
        while len(tokens) < 8:
            await model.reserve(1)
            tokens.append((await model.decode()).token_id)
        return tokens

    # In a thread: the browser's driver has an event loop in this one.
    with ThreadPoolExecutor() as pool:
        tokens = pool.submit(lambda: asyncio.run(run())).result()
    return tokenizer.decode(tokens), len(ids)


def test_a_request_with_a_data_url(chat: dict[str, Any], folder: Path) -> None:
    images = make_pixels()
    for name, image in (("one", images[0]), ("other", images[1])):
        text, n_prompt = expected(folder, image)
        assert chat[name][:2] == [text, n_prompt]
    assert chat["one"][0] != chat["other"][0]


def test_a_second_turn_does_not_encode_the_image_again(chat: dict[str, Any]) -> None:
    assert chat["second"][2] == chat["one"][1] - len("model\n")
    assert chat["n_encoded"] == chat["n_encoded_again"] == 2
    assert chat["again"][:2] == chat["one"][:2]


def test_another_image_shares_only_what_comes_before_it(chat: dict[str, Any]) -> None:
    assert chat["again"][2] == len("_user\n") + 2 + 1


def test_images_that_cannot_be_used(chat: dict[str, Any]) -> None:
    assert chat["failures"] == [
        "ImageError",
        "ImageError",
        "UnsupportedImageURLError",
        "UnsupportedDetailError",
        "ContentTypeError",
        "ContextWindowSizeExceededError",
    ]


async def _load_all(url: str) -> list[Any]:
    import js

    from py_engine.images_browser import load_image

    blob = await (await js.fetch(url)).blob()
    bitmap = await js.createImageBitmap(blob)
    canvas = js.OffscreenCanvas.new(bitmap.width, bitmap.height)
    context = canvas.getContext("2d")
    context.drawImage(bitmap, 0, 0)
    data = context.getImageData(0, 0, bitmap.width, bitmap.height)
    found = []
    for source in (url, blob, bitmap, canvas, data, js.File.new([blob], "a.png")):
        image = await load_image(source, "image")
        found.append([image.width, image.height, image.digest])
    return found


def test_every_kind_of_image_has_the_same_pixels(engine_worker: EngineWorker) -> None:
    pixels = make_pixels()[0]
    height, width, _ = pixels.shape
    rgba = np.concatenate([pixels, np.full((height, width, 1), 255, np.uint8)], axis=-1)
    digest = f"{width}x{height} {hashlib.sha256(rgba.tobytes()).hexdigest()}"
    found = engine_worker.run(_load_all, url=data_url(pixels))
    assert found == [[width, height, digest]] * 6


async def _load_array() -> list[Any]:
    import pyodide_js

    await pyodide_js.loadPackage("numpy")
    import numpy as np

    from py_engine.errors import ContentTypeError
    from py_engine.images_browser import load_image

    array = (np.arange(5 * 7 * 3) % 256).astype(np.uint8).reshape(5, 7, 3)
    image = await load_image(array, "image")
    try:
        await load_image(array.astype(np.float32), "image")
    except ContentTypeError as error:
        return [image.width, image.height, bytes(image.pixels), str(error)]
    return []


def test_a_numpy_array(engine_worker: EngineWorker) -> None:
    width, height, pixels, error = engine_worker.run(_load_array)
    assert (width, height) == (7, 5)
    table = np.frombuffer(pixels, np.uint8).reshape(5, 7, 4)
    assert (table[..., :3].ravel() == np.arange(105)).all()
    assert (table[..., 3] == 255).all()
    assert "uint8" in error
