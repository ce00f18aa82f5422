"""A worker script that tells by a lock, named by the worker's path, that the worker runs."""

from typing import Any

import js
from pyodide.ffi import create_proxy


def start(handler: Any) -> None:
    """Hold the lock for the worker's life."""
    never = js.Promise.withResolvers().promise
    js.navigator.locks.request(js.location.pathname, create_proxy(lambda _lock: never))
