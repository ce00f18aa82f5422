"""Bytes in host memory: JS ArrayBuffers in the browser, `bytes` in CPython, handled alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from py_engine.storage.source import HostBytes, byte_length

_BLOCK_BYTES = 1 << 20


def join_bytes(parts: Sequence[HostBytes]) -> HostBytes:
    """Return all parts, one after the other; at least one."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], bytes):
        return b"".join(parts)
    import js

    target = js.Uint8Array.new(sum(map(byte_length, parts)))
    offset = 0
    for part in parts:
        target.set(js.Uint8Array.new(part), offset)
        offset += byte_length(part)
    return target.buffer


def cut(data: HostBytes, begin: int, end: int) -> HostBytes:
    """Return a copy of a part."""
    return data[begin:end] if isinstance(data, bytes) else data.slice(begin, end)


def to_bytes(data: HostBytes) -> bytes:
    """Return the bytes as a Python object, for small files and parts of files."""
    return data if isinstance(data, bytes) else bytes(data.to_bytes())


def reuse(data: HostBytes) -> None:
    """Let others have the memory of bytes that nobody needs any more: new memory is dear."""
    if isinstance(data, bytes):
        return
    import pywebllm_worker

    pywebllm_worker.reuseBuffer(data)


def python_blocks(data: HostBytes) -> Iterator[bytes | bytearray]:
    """Yield the content in blocks of Python's memory; each is only valid until the next one."""
    if isinstance(data, bytes):
        yield data
        return
    yield from _js_blocks(data)


def _js_blocks(data: Any) -> Iterator[bytes | bytearray]:
    import js

    size, block = byte_length(data), bytearray(_BLOCK_BYTES)
    for begin in range(0, size, _BLOCK_BYTES):
        view = js.Uint8Array.new(data, begin, min(_BLOCK_BYTES, size - begin))
        if view.length < _BLOCK_BYTES:
            yield view.to_bytes()
        else:
            view.assign_to(block)
            yield block
