"""Models where the browser stores nothing, as in private windows: loaded, but not kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from py_engine.storage.fetcher import Fetcher
from py_engine.storage.known_files import RemoteSource
from py_engine.storage.model_storage import StoredModel
from py_engine.storage.source import FileInfo, HostBytes, OnBytes

T = TypeVar("T")


class NoStorage:
    """`ModelStorage` without a store."""

    backend = "none"

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def open(self, remote: RemoteSource) -> RetryingSource:
        """Return a source that reads `remote`, again where that fails."""
        return RetryingSource(remote, self._fetcher)

    async def models(self) -> list[StoredModel]:
        """Return no models."""
        return []

    async def has(self, url: str, paths: Iterable[str] | None = None) -> bool:
        """Return False: nothing is stored."""
        return False

    async def other_paths(self, url: str) -> list[str]:
        """Return no files: they could not be taken over."""
        return []

    async def has_other_weights(self, url: str) -> bool:
        """Return False."""
        return False

    async def delete(self, url: str, paths: Iterable[str] | None = None) -> int:
        """Return 0: there is nothing to delete."""
        return 0


class RetryingSource:
    """A `ModelSource` that tries again what `fetcher`'s policy says is worth it."""

    def __init__(self, remote: RemoteSource, fetcher: Fetcher) -> None:
        self._remote = remote
        self._fetcher = fetcher

    @property
    def url(self) -> str:
        """The address of the model's folder."""
        return self._remote.url

    @property
    def entry(self) -> str:
        """The path of the one file that the model's address names; "" where it names a folder."""
        return self._remote.entry

    async def read_text(self, path: str) -> str:
        """Return a UTF-8 file."""
        return await self._retry(path, lambda: self._remote.read_text(path))

    async def read_json(self, path: str) -> Any:
        """Return a parsed JSON file."""
        return await self._retry(path, lambda: self._remote.read_json(path))

    async def read_bytes(self, path: str, on_bytes: OnBytes | None = None) -> HostBytes:
        """Return a whole file."""
        return await self._retry(path, lambda: self._remote.read_bytes(path, on_bytes))

    async def read_range(
        self, path: str, begin: int, end: int, on_bytes: OnBytes | None = None
    ) -> HostBytes:
        """Return a part of a file."""
        return await self._retry(path, lambda: self._remote.read_range(path, begin, end, on_bytes))

    async def size(self, path: str) -> int:
        """Return a file's length in bytes."""
        return await self._retry(path, lambda: self._remote.size(path))

    async def list_files(self) -> Mapping[str, FileInfo] | None:
        """Return all files by path; None where the place cannot be listed."""
        return await self._retry("", self._remote.list_files)

    async def _retry(self, path: str, attempt: Callable[[], Awaitable[T]]) -> T:
        return await self._fetcher.retry(f"{self.url}{path}", attempt)
