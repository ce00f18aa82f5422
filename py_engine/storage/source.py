"""Where a model's files come from: the protocol of a source, and what all sources share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from py_engine.errors import (
    AccessDeniedError,
    CrossOriginError,
    MissingFileError,
    ModelFileFormatError,
    TruncatedFileError,
)

HostBytes = Any
"""A file's bytes in host memory: a JS ArrayBuffer in the browser, `bytes` in CPython."""

OnBytes = Callable[[int], object]
"""Is called with the number of bytes of a file, or of a range, that are there so far."""

NOT_THERE = (MissingFileError, AccessDeniedError, CrossOriginError)
"""What a reader may raise for a file that does not exist.

S3 refuses it (HTTP 403); nginx's 404 lacks the headers that let pages of other sites read it.
"""


@dataclass(frozen=True)
class FileInfo:
    """What a listing knows of a file: its size in bytes and, as lower-case hex, its hashes.

    `sha256` is that of the content; `git_oid` is git's SHA-1 of a blob, which a Hugging Face
    repository gives for small files instead.
    """

    size: int
    sha256: str | None = None
    git_oid: str | None = None


@dataclass(frozen=True)
class ModelPlace:
    """Where the files of a model's record are kept: under the `url` of their folder.

    `entry` is the file that the record names, and `quantization` the one of the GGUF file to
    choose, "" for neither.
    """

    url: str
    entry: str = ""
    quantization: str = ""


def keeps_files(source: ModelSource) -> bool:
    """Return whether a source has `download`, which stores whole files before they are read."""
    return hasattr(source, "download")


class ModelSource(Protocol):
    """A model's folder. Paths are relative to it.

    Errors of all readers: MissingFileError, NetworkError's classes, TruncatedFileError.
    """

    @property
    def url(self) -> str:
        """The folder's address, which ends in a slash; it has no access token and no query."""
        ...

    @property
    def entry(self) -> str:
        """The path of the one file that the model's address names; "" where it names a folder."""
        ...

    async def read_text(self, path: str) -> str:
        """Return a UTF-8 file. Raises ModelFileFormatError when it is something else."""
        ...

    async def read_json(self, path: str) -> Any:
        """Return a parsed JSON file. Raises ModelFileFormatError with line and column."""
        ...

    async def read_bytes(self, path: str, on_bytes: OnBytes | None = None) -> HostBytes:
        """Return a whole file."""
        ...

    async def read_range(
        self, path: str, begin: int, end: int, on_bytes: OnBytes | None = None
    ) -> HostBytes:
        """Return the bytes from `begin` up to, not including, `end`, all of them."""
        ...

    async def size(self, path: str) -> int:
        """Return a file's length in bytes."""
        ...

    async def list_files(self) -> Mapping[str, FileInfo] | None:
        """Return all files by path; None where the place cannot be listed."""
        ...


def byte_length(data: HostBytes) -> int:
    """Return the number of bytes of a file in host memory."""
    return len(data) if isinstance(data, bytes) else int(data.byteLength)


def decode_text(data: bytes, address: str) -> str:
    """Decode a UTF-8 file; `address` names it in errors. Raises ModelFileFormatError."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFileFormatError(
            f"{address} is not UTF-8 text: byte {error.start} is invalid. Download the file again, "
            "or repair it."
        ) from error


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
    except (ValueError, RecursionError) as error:  # numbers too long, brackets too deep
        raise ModelFileFormatError(
            f"{address} is not JSON that can be read: {error}. Download the file again, or repair "
            "it."
        ) from error


def range_too_long(address: str, begin: int, end: int, size: int) -> TruncatedFileError:
    """Return the error for a range that ends after its file does."""
    return TruncatedFileError(
        f"{address} has {size} bytes, but bytes {begin} to {end} were asked for. The file is cut "
        "short, or its index is of another version: download both again."
    )
