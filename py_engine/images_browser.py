"""Decodes images in the worker by the browser: their pixels stay outside Python's memory."""

from __future__ import annotations

import hashlib
from typing import Any

import js
from pyodide.ffi import JsException, JsProxy, to_js

from py_engine.errors import ContentTypeError, ImageError
from py_engine.json_values import shown
from py_engine.models.images import HostImage

MAX_PIXELS = 1 << 25
"""So many fit into 128 MiB, what every GPU can bind."""

_DRAWN = ("ImageBitmap", "OffscreenCanvas", "VideoFrame")


async def load_image(source: Any, what: str) -> HostImage:
    """Return an image's pixels.

    `source` is a URL, a Blob or File, an ImageBitmap, OffscreenCanvas, VideoFrame or ImageData, or
    a NumPy array u8 (height, width, 3). A picture is taken at its own size and turned as its EXIF
    data says; of its alpha nothing is used.
    Errors: ImageError for one that cannot be fetched or decoded or is too large, ContentTypeError
    for another object.
    """
    if isinstance(source, str):
        source = await _fetched(source, what)
    elif not isinstance(source, JsProxy):
        return _from_array(source, what)
    kind = str(js.Object.prototype.toString.call(source))[8:-1]
    if kind in ("Blob", "File"):
        return await _drawn(await _decoded(source, what), what, closes=True)
    if kind in _DRAWN:
        return await _drawn(source, what)
    if kind == "ImageData":
        return await _hashed(source, what)
    raise _no_image(what, f"a JavaScript {kind}")


async def _fetched(url: str, what: str) -> Any:
    shown_url = shown(url)
    try:
        response = await js.fetch(url)
    except JsException as error:
        raise ImageError(
            f"{what} cannot be fetched from {shown_url}: {error}. The server may not be reachable, "
            "or does not allow other sites to read its images (CORS). Give it as a data: URL."
        ) from None
    if not response.ok:
        raise ImageError(
            f"{what} cannot be fetched from {shown_url}: the server answers {response.status}. "
            "Check the address, or give the image as a data: URL."
        )
    return await response.blob()


async def _decoded(blob: Any, what: str) -> Any:
    options = to_js({"premultiplyAlpha": "none"}, dict_converter=js.Object.fromEntries)
    try:
        return await js.createImageBitmap(blob, options)
    except JsException as error:
        raise ImageError(
            f"{what}, {blob.size} bytes of {shown(str(blob.type))}, cannot be decoded: {error}. "
            "Give it as PNG, JPEG, WebP or another format that the browser shows."
        ) from None


async def _drawn(picture: Any, what: str, *, closes: bool = False) -> HostImage:
    is_frame = hasattr(picture, "displayWidth")
    width = int(picture.displayWidth if is_frame else picture.width)
    height = int(picture.displayHeight if is_frame else picture.height)
    _check_size(width, height, what)
    canvas = js.OffscreenCanvas.new(width, height)
    options = to_js({"willReadFrequently": True}, dict_converter=js.Object.fromEntries)
    context = canvas.getContext("2d", options)
    context.drawImage(picture, 0, 0)
    if closes:
        picture.close()
    return await _hashed(context.getImageData(0, 0, width, height), what)


async def _hashed(data: Any, what: str) -> HostImage:
    width, height = int(data.width), int(data.height)
    _check_size(width, height, what)
    pixels = data.data.slice().buffer
    digest = (await js.crypto.subtle.digest("SHA-256", pixels)).to_bytes().hex()
    return HostImage(width, height, pixels, f"{width}x{height} {digest}")


def _from_array(array: Any, what: str) -> HostImage:
    shape = tuple(getattr(array, "shape", ()))
    if len(shape) != 3 or shape[2] != 3 or str(array.dtype) != "uint8":
        raise _no_image(what, f"{type(array).__name__} {shape or ''}")
    height, width, _ = shape
    _check_size(width, height, what)
    import numpy as np

    pixels = np.full((height, width, 4), 255, np.uint8)
    pixels[..., :3] = array
    raw = pixels.tobytes()
    return HostImage(width, height, raw, f"{width}x{height} {hashlib.sha256(raw).hexdigest()}")


def _check_size(width: int, height: int, what: str) -> None:
    if not 0 < width * height <= MAX_PIXELS or height > 65535:
        raise ImageError(
            f"{what} has {width} x {height} pixels, but must have some, at most {MAX_PIXELS:,}. "
            "Make it smaller."
        )


def _no_image(what: str, found: str) -> ContentTypeError:
    return ContentTypeError(
        f"{what} is {found}, but must be a URL, a Blob or File, an ImageBitmap, ImageData, or a "
        "NumPy array of uint8 (height, width, 3)."
    )
