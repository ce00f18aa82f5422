"""What the browser's storage throws, as our errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyodide.ffi import JsException

from py_engine.errors import StorageBusyError, StorageError, StorageFullError


@contextmanager
def told_as_ours() -> Iterator[None]:
    """Raise our errors for what the browser's storage throws in a `with` block."""
    try:
        yield
    except JsException as error:
        raise storage_error(error) from error


def storage_error(error: JsException) -> StorageError:
    """Return our error for a DOMException of OPFS, the Cache API or IndexedDB."""
    reason = f"{error.name}: {error.message}"
    if error.name == "QuotaExceededError":
        return StorageFullError(
            f"The browser gives this site no more room ({reason}). Delete a stored model, or free "
            "space on the device."
        )
    if error.name == "NoModificationAllowedError":
        return StorageBusyError(
            f"Another tab has the same file open ({reason}). Close it, or wait until it is done."
        )
    return StorageError(
        f"The browser's storage failed ({reason}). Reload the page; where that does not help, "
        "choose another AppConfig.cacheBackend."
    )
