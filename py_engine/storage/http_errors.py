"""What an HTTP status means for a model's file, in words that say what to do."""

from __future__ import annotations

from collections.abc import Callable

from py_engine.errors import (
    AccessDeniedError,
    MissingFileError,
    ModelFileError,
    NetworkError,
    TruncatedFileError,
)

Headers = Callable[[str], str | None]
"""Return a response's header by name; None where there is none, or scripts may not see it."""


def shown_address(address: str) -> str:
    """Return an address for messages: a query may be a signature, so it is left out."""
    return address.partition("?")[0]


def status_error(address: str, status: int, header: Headers) -> ModelFileError:
    """Return the error for an answer that is not the file."""
    shown = shown_address(address)
    if status in (404, 410):
        return MissingFileError(
            f"{shown} does not exist (HTTP {status}). Correct the model's address, "
            "or put the file there."
        )
    if status == 416:
        return TruncatedFileError(
            f"{shown} is shorter than its index says (HTTP 416). The files are of different "
            "versions, or an upload was cut off: load the model again, or upload it again."
        )
    if status in (401, 403):
        error: NetworkError = AccessDeniedError(
            f"{shown} is not public (HTTP {status}). Correct the model's address, choose a model "
            "that needs no login, or pick its files as local files."
        )
    else:
        error = NetworkError(
            f"{shown} could not be fetched: the server answered HTTP {status}. Try again later."
        )
    error.status = status
    error.retry_after_s = retry_after(header("retry-after"))
    return error


def retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks to wait, which may be a date; else 0."""
    if value is None:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(value)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
