"""Where a model's files come from: the protocol of a source, and what all sources share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

from py_engine.errors import ModelFileFormatError

HostBytes = Any
"""A file's bytes in host memory: a JS ArrayBuffer in the browser, `bytes` in CPython."""

_HUGGING_FACE_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com")


class ModelSource(Protocol):
    """A model's folder. Paths are relative to it.

    Errors of all readers: MissingFileError, NetworkError, TruncatedFileError.
    """

    @property
    def url(self) -> str: ...

    async def read_text(self, path: str) -> str:
        """Return a UTF-8 file. Raises ModelFileFormatError when it is something else."""
        ...

    async def read_json(self, path: str) -> Any:
        """Return a parsed JSON file. Raises ModelFileFormatError with line and column."""
        ...

    async def read_bytes(
        self, path: str, on_bytes: Callable[[int], None] | None = None
    ) -> HostBytes:
        """Return a whole file; `on_bytes(n)` is called with the bytes that are there so far."""
        ...


def byte_length(data: HostBytes) -> int:
    """Return the number of bytes of a file in host memory."""
    return len(data) if isinstance(data, bytes) else int(data.byteLength)


def parse_json(text: str, address: str) -> Any:
    """Parse a JSON file; `address` names it in errors. Raises ModelFileFormatError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        html = text.lstrip()[:1] == "<"
        remedy = (
            "The server sent a web page instead: the address is wrong, or needs a login."
            if html
            else "Download the file again, or repair it."
        )
        raise ModelFileFormatError(
            f"{address} is not valid JSON: {error.msg} at line {error.lineno}, "
            f"column {error.colno}. {remedy}"
        ) from error


def clean_model_url(url: str) -> str:
    """Return the address of a model's folder, ending in a slash; a relative one stays relative.

    The address of a repository on Hugging Face gets `resolve/main/`, unless it names a revision.

    Source: WebLLM's `cleanModelUrl`.
    """
    # differs: WebLLM adds resolve/main/ for every host, so that other servers need that path too.
    folder = url if url.endswith("/") else f"{url}/"
    parts = urlsplit(folder)
    if parts.hostname in _HUGGING_FACE_HOSTS and not re.search(r"/resolve/[^/]+/", parts.path):
        folder += "resolve/main/"
    return folder
