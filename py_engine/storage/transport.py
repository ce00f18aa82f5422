"""HTTP as the downloads need it: a request for a range, an answer, its body in portions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from py_engine.errors import ModelFileError
from py_engine.storage.http_errors import Headers, shown_address, status_error
from py_engine.storage.identity import Identity
from py_engine.storage.source import HostBytes, OnBytes

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class BodyBrokenError(Exception):
    """The body ended before its end, or nothing came for too long; `data` is what came."""

    def __init__(self, reason: str, data: HostBytes | None) -> None:
        super().__init__(reason)
        self.data = data


@dataclass(frozen=True)
class Request:
    """What to ask for: the file's URL and headers, such as Authorization; both may hold secrets.

    `refusal(shown address, status, headers)` returns the error for an answer that is not the file.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    refusal: Callable[[str, int, Headers], ModelFileError] = status_error

    @property
    def shown(self) -> str:
        """The address for messages."""
        return shown_address(self.url)


class Response(Protocol):
    """An answer whose headers have come. Close it, or read it to its end."""

    @property
    def status(self) -> int: ...

    def header(self, name: str) -> str | None:
        """Return a header; None also for one that the browser hides from other sites' pages."""
        ...

    async def read(self, n: int, on_bytes: OnBytes | None = None) -> HostBytes:
        """Return the next `n` bytes of the body, fewer at its end; `on_bytes(n so far)`.

        Errors: BodyBrokenError.
        """
        ...

    def close(self) -> None:
        """Stop the transfer, if it is still going on."""
        ...


class Transport(Protocol):
    """Sends requests."""

    async def get(self, request: Request, begin: int | None, end: int, stall_s: float) -> Response:
        """Ask for the bytes from `begin` up to `end`, or for the whole file (`begin` None).

        Returns an answer with status 200, 206 or 416. `stall_s`: seconds after which a connection
        that brings nothing is given up. Errors: the request's `refusal` for any other status,
        NetworkError without a status where none came.
        """
        ...


@dataclass(frozen=True)
class ContentRange:
    """The `Content-Range` of an answer; -1 is unknown, `end` is the byte after the last."""

    begin: int = -1
    end: int = -1
    total: int = -1


def content_range(response: Response) -> ContentRange | None:
    """Return what part of the file an answer has; None where it does not say."""
    found = _CONTENT_RANGE.fullmatch((response.header("content-range") or "").strip())
    if found is None:
        return None
    first, last, total = found.groups()
    return ContentRange(
        -1 if first is None else int(first),
        -1 if last is None else int(last) + 1,
        -1 if total == "*" else int(total),
    )


def content_length(response: Response) -> int | None:
    """Return the length of the body, which is not the file's where the server compresses it."""
    text = response.header("content-length") or ""
    return int(text) if text.isdecimal() and not response.header("content-encoding") else None


def identity_of(response: Response, size: int) -> Identity:
    """Return what an answer says of a file's content."""
    etag = (response.header("etag") or "").removeprefix("W/")
    return Identity(size, etag=etag, modified=response.header("last-modified") or "")
