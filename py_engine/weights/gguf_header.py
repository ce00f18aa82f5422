"""The header of a GGUF file, read piece by piece: metadata, and where the tensors lie.

Nothing in a header is believed before it is checked: a count or length that does not fit into the
file ends in an error before anything is allocated for it.

Source: the format's specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from py_engine.errors import MLCError, ModelFileFormatError, TruncatedFileError
from py_engine.json_fields import shown
from py_engine.weights.gguf_types import GGML_TYPES, GgmlType

MAX_HEADER_BYTES = 128 << 20
MAX_DIMENSIONS = 4
MAX_NESTING = 4
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""The scalar types of metadata, as letters of `struct`."""
_LENGTH = struct.Struct("<Q")
_MIN_STRING, _MIN_ARRAY, _MIN_TENSOR = 8, 12, 24
"""The fewest bytes that a string, an array and a tensor's entry take."""
_ADVICE = "Download the file again; if that does not help, it was damaged where it was made."

Pieces = Generator[int, bytes, Any]
"""Yields how many more bytes it needs at least, and is sent a piece of the file."""


@dataclass(frozen=True)
class GgufTensor:
    """A tensor's entry: `shape` with rows first, `offset` in bytes from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int
    nbytes: int


@dataclass(frozen=True)
class GgufHeader:
    """What stands before the tensors' bytes."""

    version: int
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


class HeaderParser:
    """Parses a header from the pieces that `feed` gets.

    `address` and `size` are the file's, for the checks and their messages. `header` is None until
    all of it is there. Errors: ModelFileFormatError, TruncatedFileError.
    """

    def __init__(self, address: str, size: int) -> None:
        self.header: GgufHeader | None = None
        self._address = address
        self._size = size
        self._data = bytearray()
        self._at = 0
        self._dropped = 0
        self._parse = self._header()
        self.needed = next(self._parse)
        """The bytes that the next piece must have at least; 0 when the header is complete."""

    @property
    def position(self) -> int:
        """Where in the file the next piece begins."""
        return self._dropped + len(self._data)

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the file, of `needed` bytes or more."""
        del self._data[: self._at]
        self._dropped += self._at
        self._at = 0
        try:
            self.needed = self._parse.send(piece)
        except StopIteration as stop:
            self.header, self.needed = stop.value, 0

    def _wrong(self, what: str) -> MLCError:
        return ModelFileFormatError(f"{self._address}: {what}. {_ADVICE}")

    def _has(self, n: int, what: str) -> None:
        """Refuse to wait for bytes that the file does not have, or that no header needs."""
        end = self._dropped + self._at + n
        if end > self._size:
            raise TruncatedFileError(
                f"{self._address} has {self._size} bytes, but {what} would end at byte {end}. "
                f"{_ADVICE}"
            )
        if end > MAX_HEADER_BYTES:
            raise self._wrong(f"{what} would end at byte {end}, too far for a header")

    def _take(self, n: int, what: str) -> Generator[int, bytes, bytes]:
        self._has(n, what)
        while (missing := self._at + n - len(self._data)) > 0:
            self._data += yield missing
        start = self._at
        self._at += n
        return bytes(self._data[start : self._at])

    def _numbers(
        self, letter: str, count: int, what: str
    ) -> Generator[int, bytes, tuple[Any, ...]]:
        layout = f"<{count}{letter}"
        data = yield from self._take(struct.calcsize(layout), what)
        return struct.unpack(layout, data)

    def _number(self, letter: str, what: str) -> Generator[int, bytes, Any]:
        return (yield from self._numbers(letter, 1, what))[0]

    def _string(self, what: str) -> Generator[int, bytes, str]:
        length = yield from self._number("Q", what)
        return (yield from self._take(length, what)).decode("utf-8", "replace")

    def _strings(self, count: int, what: str) -> Generator[int, bytes, list[str]]:
        """Read an array of strings; vocabularies have hundreds of thousands, so this is a loop."""
        found: list[str] = []
        while len(found) < count:
            data, at, end = self._data, self._at, len(self._data)
            while len(found) < count and at + 8 <= end:
                begin = at + 8
                stop = begin + _LENGTH.unpack_from(data, at)[0]
                if stop > end:
                    break
                found.append(data[begin:stop].decode("utf-8", "replace"))
                at = stop
            self._at = at
            if len(found) < count:
                found.append((yield from self._string(what)))
        return found

    def _array(self, what: str, depth: int) -> Generator[int, bytes, list[Any]]:
        kind, count = (yield from self._number("I", what)), (yield from self._number("Q", what))
        if kind in _SCALARS:
            self._has(count * struct.calcsize(f"<{_SCALARS[kind]}"), what)
            return list((yield from self._numbers(_SCALARS[kind], count, what)))
        if kind == _STRING:
            self._has(count * _MIN_STRING, what)
            return (yield from self._strings(count, what))
        if kind != _ARRAY or depth == MAX_NESTING:
            raise self._wrong(f"{what} is an array of the unknown type {kind}")
        self._has(count * _MIN_ARRAY, what)
        nested: list[Any] = []
        for _ in range(count):
            nested += [(yield from self._array(what, depth + 1))]
        return nested

    def _value(self, what: str) -> Generator[int, bytes, Any]:
        kind = yield from self._number("I", what)
        if kind == _STRING:
            return (yield from self._string(what))
        if kind == _ARRAY:
            return (yield from self._array(what, 1))
        if kind not in _SCALARS:
            raise self._wrong(f"{what} has the unknown type {kind}")
        return (yield from self._number(_SCALARS[kind], what))

    def _header(self) -> Generator[int, bytes, GgufHeader]:
        version = yield from self._version()
        n_tensors = yield from self._number("Q", "the number of tensors")
        n_values = yield from self._number("Q", "the number of metadata values")
        self._has(n_tensors * _MIN_TENSOR, f"{n_tensors} tensors")
        self._has(n_values * _MIN_ARRAY, f"{n_values} metadata values")
        metadata: dict[str, Any] = {}
        for _ in range(n_values):
            key = yield from self._string("a metadata key")
            if key in metadata:
                raise self._wrong(f"the metadata {shown(key)} stands there twice")
            metadata[key] = yield from self._value(f"metadata {shown(key)}")
        alignment = self._alignment(metadata)
        entries: list[tuple[str, tuple[int, ...], int, int]] = []
        for _ in range(n_tensors):
            entries += [(yield from self._entry())]
        start = -(-(self._dropped + self._at) // alignment) * alignment
        tensors = self._tensors(entries, start, alignment)
        return GgufHeader(version, metadata, tensors)

    def _version(self) -> Generator[int, bytes, int]:
        if self._size < 24:
            raise self._wrong(f"it has {self._size} bytes, too few for a GGUF file")
        magic = yield from self._take(4, "the magic number")
        if magic != _MAGIC:
            raise ModelFileFormatError(
                f"{self._address} is no GGUF file: it begins with {magic!r} instead of {_MAGIC!r}. "
                "Check its address: a server's error page, a Git LFS pointer and llama.cpp's older "
                "formats (GGML, GGJT) end up here."
            )
        raw = yield from self._take(4, "the version")
        version = int.from_bytes(raw, "little")
        if version in _VERSIONS:
            return version
        if int.from_bytes(raw, "big") in _VERSIONS:
            raise ModelFileFormatError(
                f"{self._address} is a big-endian GGUF file, but only little-endian ones can be "
                "read. Convert it with gguf's `gguf-convert-endian FILE little`."
            )
        raise ModelFileFormatError(
            f"{self._address} has version {version} of the GGUF format, but only versions 2 and 3 "
            "can be read. Make the file again with a current llama.cpp."
        )

    def _alignment(self, metadata: dict[str, Any]) -> int:
        alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
        is_integer = isinstance(alignment, int) and not isinstance(alignment, bool)
        if not is_integer or alignment <= 0 or alignment & (alignment - 1):
            raise self._wrong(f"{ALIGNMENT_KEY} is {shown(alignment)}, but must be a power of two")
        return int(alignment)

    def _entry(self) -> Generator[int, bytes, tuple[str, tuple[int, ...], int, int]]:
        name = yield from self._string("a tensor's name")
        what = f"tensor {shown(name)}"
        n_dimensions = yield from self._number("I", what)
        if not 1 <= n_dimensions <= MAX_DIMENSIONS:
            raise self._wrong(f"{what} has {n_dimensions} dimensions instead of 1 to 4")
        sizes = yield from self._numbers("Q", n_dimensions, what)
        kind, offset = (yield from self._number("I", what)), (yield from self._number("Q", what))
        return name, sizes, kind, offset

    def _tensors(
        self, entries: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int
    ) -> dict[str, GgufTensor]:
        tensors: dict[str, GgufTensor] = {}
        for name, sizes, kind, offset in entries:
            if name in tensors:
                raise self._wrong(f"tensor {shown(name)} stands there twice")
            if offset % alignment:
                raise self._wrong(
                    f"tensor {shown(name)} begins at {offset}, no multiple of {alignment}"
                )
            tensors[name] = self._tensor(name, sizes, kind, start + offset)
        end, before = start, ""
        for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
            if tensor.offset < end:
                raise self._wrong(f"tensor {shown(tensor.name)} overlaps {shown(before)}")
            end, before = tensor.offset + tensor.nbytes, tensor.name
        return tensors

    def _tensor(self, name: str, sizes: tuple[int, ...], kind: int, begin: int) -> GgufTensor:
        form = GGML_TYPES.get(kind)
        if form is None:
            raise ModelFileFormatError(
                f"{self._address}: tensor {shown(name)} has the unknown type {kind}. It may be "
                "newer than this reader, or the file is damaged: choose a file in another "
                "quantisation, such as Q4_K_M or Q8_0."
            )
        if 0 in sizes or sizes[0] % form.elements:
            raise self._wrong(
                f"tensor {shown(name)} has sizes {list(sizes)}, but rows of {form.name} are "
                f"multiples of {form.elements}"
            )
        nbytes = math.prod(sizes) // form.elements * form.nbytes
        if begin + nbytes > self._size:
            raise TruncatedFileError(
                f"{self._address} has {self._size} bytes, but tensor {shown(name)} ends at byte "
                f"{begin + nbytes}. {_ADVICE}"
            )
        return GgufTensor(name, tuple(reversed(sizes)), form, begin, nbytes)
