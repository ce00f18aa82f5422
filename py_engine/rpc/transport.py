"""What carries messages between a proxy and its worker.

Runs on CPython, Pyodide and MicroPython.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Transport:
    """The proxy's end of a channel; messages are plain dicts of JSON values."""

    def connect(
        self,
        on_message: "Callable[[dict[str, Any]], None]",
        on_failure: "Callable[[str, bool], None]",
        on_restart: "Callable[[], None] | None" = None,
    ) -> None:
        """Call `on_message(message)` for each message that arrives from now on.

        `on_failure(reason, is_dead)` is called when the other end fails; `is_dead` tells that it
        will never answer again. `on_restart()` is called when a new worker has taken the place
        of the one that had the requests, by transports that can tell.
        """
        raise NotImplementedError

    def post(self, message: "dict[str, Any]") -> None:
        """Send one message."""
        raise NotImplementedError

    def new_uuid(self) -> str:
        """Return an id that no other request or stream has."""
        raise NotImplementedError

    def close(self) -> None:
        """End the worker and stop calling back."""
        raise NotImplementedError
