"""Gets ranges of files over HTTP until they are there: retries, waits, checks of each answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from py_engine.errors import AccessDeniedError, CrossOriginError, NetworkError
from py_engine.storage.host_bytes import join_bytes
from py_engine.storage.identity import Identity
from py_engine.storage.source import HostBytes, OnBytes, byte_length
from py_engine.storage.transport import (
    BodyBrokenError,
    Request,
    Response,
    Transport,
    content_length,
    content_range,
    identity_of,
)

T = TypeVar("T")

_PASSING = (0, 408, 425, 429, 500, 502, 503, 504)
_WAITING = (429, 503)


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try. `attempts` are those in a row that bring nothing; times are in seconds.

    While no server has answered at all, `first_attempts` are enough: the machine may be offline.
    A wait that a server asks for is kept up to `longest_wait_s`; more of it is an error.
    """

    attempts: int = 8
    first_attempts: int = 3
    base_s: float = 0.5
    longest_s: float = 30.0
    longest_wait_s: float = 300.0
    stall_s: float = 30.0
    progress_bytes: int = 1 << 16


@dataclass(frozen=True)
class Clock:
    """Time and chance, which tests replace."""

    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    now: Callable[[], float] = time.time
    random: Callable[[], float] = random.random


class FileChangedError(Exception):
    """The server has another version of the file than the one that is being fetched."""


class NoRangesError(Exception):
    """The server answers with the whole file, whatever range is asked for."""


class _TryAgainError(Exception):
    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class _Part:
    """A range on its way: what has come, also over several answers."""

    begin: int
    end: int
    on_bytes: OnBytes | None
    parts: list[HostBytes] = field(default_factory=list)
    size: int = 0

    @property
    def next(self) -> int:
        return self.begin + self.size

    def add(self, data: HostBytes | None) -> None:
        if data is not None and (byte_length(data) or not self.parts):
            self.parts.append(data)
            self.size += byte_length(data)
        self.report(0)

    def report(self, n: int) -> None:
        if self.on_bytes is not None:
            self.on_bytes(self.size + n)


class Fetcher:
    """Sends requests by `policy`; one for all files: when a server asks to wait, all of them do."""

    def __init__(
        self, transport: Transport, policy: RetryPolicy | None = None, clock: Clock | None = None
    ) -> None:
        self._transport = transport
        self._policy = policy or RetryPolicy()
        self._clock = clock or Clock()
        self._has_answered = False
        self._not_before = 0.0

    async def open(self, request: Request, begin: int | None = None, end: int = 0) -> Response:
        """Return an answer for a range, or for the whole file by default, whose headers have come.

        Its status is 200, 206 or 416. Errors: MissingFileError, NetworkError and its classes.
        """
        return await self.retry(request.shown, lambda: self._open(request, begin, end))

    async def read_range(
        self,
        request: Request,
        begin: int,
        end: int,
        identity: Identity,
        *,
        response: Response | None = None,
        on_bytes: OnBytes | None = None,
    ) -> HostBytes:
        """Return the bytes from `begin` up to `end` of the file that `identity` describes.

        What has come of it is kept over retries. `response` is an answer for this range that is
        already there. Errors: FileChangedError, NoRangesError, MissingFileError, NetworkError.
        """
        part = _Part(begin, end, on_bytes)

        async def attempt() -> None:
            nonlocal response
            answer, response = response, None
            if answer is None:
                is_empty = begin == end  # no range names no bytes
                answer = await self._open(request, None if is_empty else part.next, end)
            try:
                _check_part(answer, part, identity)
                await _read_part(answer, part)
            finally:
                answer.close()

        await self.retry(request.shown, attempt, lambda: part.size)
        return join_bytes(part.parts)

    async def read_whole(
        self,
        request: Request,
        take: Callable[[Response], Awaitable[T]],
        *,
        response: Response | None = None,
    ) -> T:
        """Give an answer with the whole file to `take` until one could be read to its end.

        `take` raises BodyBrokenError for one that could not.
        """

        async def attempt() -> T:
            nonlocal response
            answer, response = response, None
            if answer is None:
                answer = await self._open(request, None, 0)
            try:
                return await take(answer)
            finally:
                answer.close()

        return await self.retry(request.shown, attempt)

    async def _open(self, request: Request, begin: int | None, end: int) -> Response:
        while (wait_s := self._not_before - self._clock.now()) > 0:
            await self._clock.sleep(wait_s)
        try:
            response = await self._transport.get(request, begin, end, self._policy.stall_s)
        except NetworkError as error:
            self._has_answered = self._has_answered or bool(error.status)
            if error.status in _WAITING and error.retry_after_s <= self._policy.longest_wait_s:
                self._not_before = self._clock.now() + error.retry_after_s
            raise
        self._has_answered = True
        if begin is None and response.status != 200:
            response.close()
            raise _TryAgainError(f"the server answered HTTP {response.status}", response.status)
        return response

    async def retry(
        self,
        shown: str,
        attempt: Callable[[], Awaitable[T]],
        progress: Callable[[], int] = lambda: 0,
    ) -> T:
        """Return the result of the first attempt that has one; `shown` names it in errors.

        Attempts that made `progress` (bytes) do not count. Errors: the last attempt's, at once
        where trying again is no use.
        """
        failures, had = 0, progress()
        while True:
            try:
                return await attempt()
            except (AccessDeniedError, CrossOriginError):
                raise
            except (NetworkError, BodyBrokenError, _TryAgainError) as error:
                failure = error
            if progress() - had >= self._policy.progress_bytes:
                failures, had = 0, progress()
            failures += 1
            await self._pause(shown, failure, failures)

    async def _pause(self, shown: str, failure: Exception, failures: int) -> None:
        """Wait before another attempt. Raises NetworkError where there should be none."""
        policy = self._policy
        status = getattr(failure, "status", 0)
        asked_s = getattr(failure, "retry_after_s", 0.0)
        attempts = policy.attempts if self._has_answered else policy.first_attempts
        is_passing = status in _PASSING or isinstance(failure, _TryAgainError)
        if failures >= attempts or asked_s > policy.longest_wait_s or not is_passing:
            if isinstance(failure, NetworkError):
                raise failure
            raise _given_up(shown, failure, status, failures) from failure
        longest = min(policy.base_s * 2 ** (failures - 1), policy.longest_s)
        jittered = longest * (0.5 + 0.5 * self._clock.random())
        await self._clock.sleep(max(jittered, asked_s))


def _check_part(response: Response, part: _Part, identity: Identity) -> None:
    """Check that an answer is for the rest of `part`, of the file with this identity."""
    found = content_range(response)
    if response.status == 416:
        if found is not None and found.total not in (-1, identity.size):
            raise FileChangedError(f"it now has {found.total} bytes")
        raise _TryAgainError("the server has no such range (HTTP 416)", 416)
    length = content_length(response) if response.status == 206 else None
    size = found.total if found and found.total >= 0 else identity.size
    if not identity.may_equal(identity_of(response, size)):
        raise FileChangedError("it has another size or version")
    if response.status == 200:
        if part.begin == 0 and part.size == 0 and identity.size == part.end:
            return
        raise NoRangesError
    if found is not None and (found.begin != part.next or found.end > part.end):
        raise _TryAgainError(f"the server sent bytes {found.begin} to {found.end}", 206)
    if found is None and length is not None and length != part.end - part.next:
        raise _TryAgainError(f"the server sent {length} bytes", 206)


async def _read_part(response: Response, part: _Part) -> None:
    wanted = part.end - part.next
    try:
        data = await response.read(wanted, part.report)
    except BodyBrokenError as error:
        part.add(error.data)
        if part.next == part.end:
            return
        raise
    part.add(data)
    if part.next < part.end:
        raise _TryAgainError(f"the answer ended after {byte_length(data)} of {wanted} bytes")
    if await has_more(response):
        part.parts.clear()
        part.size = 0
        raise _TryAgainError(f"the answer had more than the {wanted} bytes that it should")


async def has_more(response: Response) -> bool:
    """Whether a body goes on after the bytes that were read; how it ends then does not matter."""
    try:
        return byte_length(await response.read(1)) > 0
    except BodyBrokenError:
        return False


def _given_up(shown: str, failure: Exception, status: int, attempts: int) -> NetworkError:
    error = NetworkError(
        f"{shown} could not be fetched: {failure} ({attempts} attempts). Check the network "
        "and load the model again; that goes on where this stopped."
    )
    error.status = status
    return error
