"""Writes GGUF files, in the fewest lines that tests need."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from py_engine.weights.gguf_types import GGML_TYPES

ALIGNMENT = 32
_TYPE_IDS = {form.name: number for number, form in GGML_TYPES.items()}
_LETTERS = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f"}
_LETTERS |= {"bool": "?", "u64": "Q", "i64": "q", "f64": "d"}
_IDS = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7}
_IDS |= {"string": 8, "array": 9, "u64": 10, "i64": 11, "f64": 12}


@dataclass(frozen=True)
class Typed:
    """A metadata value of a stated type ("u8", "f64", ...), a list of them for an array."""

    kind: str
    value: Any


@dataclass(frozen=True)
class FileTensor:
    """A tensor's bytes, with its shape rows first."""

    shape: tuple[int, ...]
    dtype: str
    data: bytes


def gguf_bytes(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, FileTensor] | None = None,
    *,
    version: int = 3,
    order: str = "<",
) -> bytes:
    """Return a GGUF file. Python's numbers become u32, i32 (below 0) or f32."""
    tensors = tensors or {}
    alignment = metadata.get("general.alignment", ALIGNMENT)
    head = [b"GGUF", struct.pack(f"{order}IQQ", version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        head += [_string(key, order), _value(value, order)]
    data = b""
    for name, tensor in tensors.items():
        sizes = tuple(reversed(tensor.shape))
        layout = f"{order}I{len(sizes)}QIQ"
        entry = struct.pack(layout, len(sizes), *sizes, _TYPE_IDS[tensor.dtype], len(data))
        head += [_string(name, order), entry]
        data += tensor.data + bytes(-len(tensor.data) % alignment)
    header = b"".join(head)
    return header + bytes(-len(header) % alignment) + data


def _typed(value: Any) -> Typed:
    if isinstance(value, Typed):
        return value
    if isinstance(value, bool):
        return Typed("bool", value)
    if isinstance(value, int):
        return Typed("u32" if value >= 0 else "i32", value)
    if isinstance(value, float):
        return Typed("f32", value)
    if isinstance(value, str):
        return Typed("string", value)
    items = [_typed(item) for item in value]
    return Typed(items[0].kind if items else "u32", [item.value for item in items])


def _value(value: Any, order: str) -> bytes:
    typed = _typed(value)
    if not isinstance(typed.value, list | tuple):
        return struct.pack(f"{order}I", _IDS[typed.kind]) + _item(typed.kind, typed.value, order)
    return struct.pack(f"{order}I", _IDS["array"]) + _array(typed.kind, typed.value, order)


def _array(kind: str, items: Sequence[Any], order: str) -> bytes:
    head = struct.pack(f"{order}IQ", _IDS[kind], len(items))
    return head + b"".join(_item(kind, item, order) for item in items)


def _item(kind: str, value: Any, order: str) -> bytes:
    if kind == "string":
        return _string(value, order)
    if kind == "array":
        inner = _typed(value)
        return _array(inner.kind, inner.value, order)
    return struct.pack(f"{order}{_LETTERS[kind]}", value)


def _string(text: str, order: str) -> bytes:
    data = text.encode()
    return struct.pack(f"{order}Q", len(data)) + data
