"""Bytes in the browser's memory."""

from __future__ import annotations

from typing import Any

import js
from pyodide.ffi import JsException

from py_engine.errors import ModelFileFormatError


def text_of(data: Any, address: str) -> str:
    """Return an ArrayBuffer's UTF-8 text; `address` names it in errors: ModelFileFormatError."""
    try:
        return str(js.TextDecoder.new("utf-8", fatal=True).decode(data))
    except JsException as error:
        raise ModelFileFormatError(
            f"{address} is not UTF-8 text. Download it again, or repair it."
        ) from error


def array_of(data: Any) -> Any:
    """Return the Uint8Array of an ArrayBuffer, or of Python's bytes."""
    if isinstance(data, bytes):
        array = js.Uint8Array.new(len(data))
        array.assign(data)
        return array
    return js.Uint8Array.new(data)
