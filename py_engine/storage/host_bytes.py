"""Small pieces of files in Python's own memory; what is large stays outside."""

from __future__ import annotations

from py_engine.storage.source import HostBytes


def to_bytes(data: HostBytes) -> bytes:
    """Return a file's bytes as a Python object."""
    return data if isinstance(data, bytes) else bytes(data.to_bytes())
