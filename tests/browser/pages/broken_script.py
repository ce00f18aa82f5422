"""A worker script that fails in its `start`, to be told to the page."""

from typing import Any


def start(handler: Any) -> None:
    """Fail."""
    handler.no_such_method("on this line")
