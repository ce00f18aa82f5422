"""Asks the browser not to clear the site's stored models on its own.

Runs on Pyodide and MicroPython: pages ask, with an engine of their own or a worker's; workers
cannot.
"""

import js


def ask_to_persist() -> None:
    """Ask, where this is a page that may."""
    storage = getattr(js.navigator, "storage", None)  # only on https
    if storage and hasattr(storage, "persist"):
        storage.persist()
