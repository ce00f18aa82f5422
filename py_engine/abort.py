"""Ending one request: `create(..., signal=controller.signal)`, after JavaScript's AbortController.

The engine and its proxies take such a signal, and a JavaScript AbortSignal as well. Runs on
CPython, Pyodide and MicroPython.
"""

import asyncio
import weakref

from py_engine.errors import AbortError, ConfigValueError
from py_engine.json_values import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

DEFAULT_REASON = "The request was aborted."


class AbortSignal:
    """Tells the requests that have it when to end; an AbortController's `signal`."""

    def __init__(self) -> None:
        self.aborted = False
        self.reason = ""
        self._listeners: list[Callable[[], object]] = []

    def listen(self, listener: "Callable[[], object]") -> "Callable[[], None]":
        """Call `listener()` once, when the signal is aborted; returns what ends that."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def _abort(self, reason: str) -> None:
        if self.aborted:
            return
        self.aborted = True
        self.reason = reason
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()


class AbortController:
    """Ends the requests that were given its `signal`; they raise AbortError.

    A reply at hand ends within a token or prefill chunk and frees the model, a load ends where it
    is and leaves nothing loaded. `interrupt_generate` instead ends the replies of all requests,
    with what they have.
    """

    def __init__(self) -> None:
        self.signal = AbortSignal()

    def abort(self, reason: str = DEFAULT_REASON) -> None:
        """End the requests; `reason` is their AbortError's text. Once is enough."""
        self.signal._abort(reason)


async def until_aborted(work: "Coroutine[Any, Any, Any]", signal: "Any") -> "Any":
    """Await `work`, which is cancelled when the signal is aborted; None is no signal.

    Errors: AbortError with the signal's reason; ConfigValueError for another object than a signal.
    """
    if signal is None:
        return await work
    try:
        _require_signal(signal)
        _raise_if_aborted(signal)
    except Exception:
        work.close()
        raise
    task = asyncio.create_task(work)
    stop = _listen(signal, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        _raise_if_aborted(signal)
        raise
    finally:
        stop()


class AbortableStream:
    """A completion's stream that ends with AbortError when its signal is aborted."""

    def __init__(self, stream: "Any", signal: "Any") -> None:
        self._stream = stream
        self._signal = signal
        self._closing: Any = None
        this = weakref.ref(self)  # a stream that is dropped frees the model

        def close() -> None:
            stream = this()
            if stream is not None:
                stream._close()

        self._stop = _listen(signal, close)

    def __aiter__(self) -> "AbortableStream":
        return self

    async def __anext__(self) -> "Any":
        try:
            return await until_aborted(self._stream.__anext__(), self._signal)
        except Exception:  # its end, too
            await self.aclose()
            raise

    async def __aenter__(self) -> "AbortableStream":
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the completion and free the model; nothing happens after the stream's end."""
        self._stop()
        await self._stream.aclose()

    def _close(self) -> None:
        self._closing = asyncio.create_task(self.aclose())


def _require_signal(signal: "Any") -> None:
    if not hasattr(signal, "aborted"):
        raise ConfigValueError(
            f"signal is {shown(signal)}, but must be the `signal` of an AbortController."
        )


def _raise_if_aborted(signal: "Any") -> None:
    if signal.aborted:
        reason = getattr(signal.reason, "message", signal.reason)  # JavaScript's is an exception
        raise AbortError(str(reason) or DEFAULT_REASON)


def _listen(signal: "Any", listener: "Callable[[], object]") -> "Callable[[], None]":
    if isinstance(signal, AbortSignal):
        return signal.listen(listener)
    try:
        from pyodide.ffi import create_proxy
    except ImportError:  # MicroPython
        from jsffi import create_proxy
    proxy = create_proxy(lambda _event: listener())
    signal.addEventListener("abort", proxy)

    def stop() -> None:
        signal.removeEventListener("abort", proxy)

    return stop
