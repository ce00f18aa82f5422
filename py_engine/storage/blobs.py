"""What a browser's storage must do for us: keep small numbers of bytes under names.

OPFS, the Cache API and IndexedDB each implement this; files of any size are made of such blobs by
`store.FileStore`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from py_engine.storage.source import HostBytes


class BlobStore(Protocol):
    """Blobs by folder and name, of at most some megabytes. Names are `[0-9a-z.]+`.

    Errors of all methods: StorageError where the browser refuses.
    """

    @property
    def backend(self) -> str:
        """What `AppConfig.cacheBackend` calls it."""
        ...

    async def put(self, folder: str, name: str, data: HostBytes) -> HostBytes:
        """Keep a new blob: all of it or nothing, however the call ends, and for good on return.

        Returns the bytes, as another thread may have taken `data`, which is of no use any more.
        A call that is cancelled ends when nothing writes any more: what is deleted after stays so.
        Errors: StorageFullError.
        """
        ...

    async def get(
        self, folder: str, name: str, begin: int = 0, end: int | None = None
    ) -> HostBytes | None:
        """Return a range of a blob; None where there is none of that name."""
        ...

    async def folders(self) -> Sequence[str]:
        """Return the folders that have blobs."""
        ...

    async def names(self, folder: str) -> Sequence[str]:
        """Return the names of a folder's blobs; none for an unknown folder."""
        ...

    async def delete(self, folder: str, names: Sequence[str] | None = None) -> None:
        """Delete blobs, by default all of the folder's; what is not there is left alone.

        Errors: StorageBusyError where another tab holds one open.
        """
        ...
