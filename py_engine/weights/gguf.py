"""Opens a model in GGUF, of one file or of several parts, by reading no more than the headers."""

from __future__ import annotations

import array
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from py_engine.errors import MissingFileError, ModelFileFormatError, UnknownQuantizationError
from py_engine.json_fields import shown
from py_engine.storage.host_bytes import to_bytes
from py_engine.storage.source import ModelSource
from py_engine.weights.gguf_header import GgufHeader, GgufTensor, HeaderParser
from py_engine.weights.gguf_types import READABLE_TYPES
from py_engine.weights.gguf_vocabulary import Vocabulary, read_vocabulary
from py_engine.weights.records import TensorRecord

FIRST_PIECE_BYTES = 1 << 20
LARGEST_PIECE_BYTES = 8 << 20
ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")

# StableLM 2 has a norm of its own for each head, a row each.
_VECTORS = ("_norm.weight", ".bias")
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_MAX_PARTS = 1000


@dataclass(frozen=True)
class GgufFile:
    """A model's metadata and tensors.

    `path` is the first part's, `files` has the size of each part. `rope_factors` are the tensors
    that divide RoPE's frequencies, by name: they belong to the configuration.
    """

    path: str
    files: Mapping[str, int]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorRecord]
    rope_factors: Mapping[str, tuple[float, ...]]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary, read once. Errors: ModelFileFormatError."""
        return read_vocabulary(self.metadata, self.path)


async def read_gguf(source: ModelSource, path: str) -> GgufFile:
    """Read the headers of the model at `path`, which may be any part of a split file.

    Errors: ModelFileFormatError, TruncatedFileError, UnknownQuantizationError, and those of the
    source.
    """
    headers = {path: await _read_header(source, path)}
    paths = _parts(headers[path][0], path, source.url)
    for other in paths:
        if other not in headers:
            headers[other] = await _read_part(source, other, path)
    tensors: dict[str, TensorRecord] = {}
    for number, part in enumerate(paths):
        header = headers[part][0]
        _check_part(header, number, len(paths), source.url + part)
        for tensor in header.tensors.values():
            if tensor.name in tensors:
                where = f"{source.url}{part} and {tensors[tensor.name].file}"
                raise ModelFileFormatError(
                    f"{where} both have a tensor {shown(tensor.name)}. Download all parts of the "
                    "model again, from one place."
                )
            tensors[tensor.name] = _record(tensor, part, source.url)
    return GgufFile(
        paths[0],
        {part: headers[part][1] for part in paths},
        headers[paths[0]][0].metadata,
        tensors,
        {name: await _floats(source, tensors[name]) for name in ROPE_FACTORS if name in tensors},
    )


async def _read_header(source: ModelSource, path: str) -> tuple[GgufHeader, int]:
    """Return a file's header and size."""
    size = await source.size(path)
    parser = HeaderParser(source.url + path, size)
    piece_bytes = FIRST_PIECE_BYTES
    while parser.header is None:
        begin = parser.position
        end = min(begin + max(parser.needed, piece_bytes), size)
        parser.feed(to_bytes(await source.read_range(path, begin, end)))
        piece_bytes = min(2 * piece_bytes, LARGEST_PIECE_BYTES)
    return parser.header, size


async def _read_part(source: ModelSource, path: str, named: str) -> tuple[GgufHeader, int]:
    try:
        return await _read_header(source, path)
    except MissingFileError as error:
        raise MissingFileError(
            f"{source.url}{path} is missing, a part of the model that {named} belongs to. Put all "
            "parts into one folder under their original names."
        ) from error


def _parts(header: GgufHeader, path: str, folder: str) -> list[str]:
    """Return the paths of all parts of the model that the file at `path` is a part of."""
    count = header.metadata.get("split.count", 1)
    if count in (0, 1):
        return [path]
    match = _PART.fullmatch(path)
    if match is None or int(match[3]) != count or count > _MAX_PARTS:
        raise ModelFileFormatError(
            f"{folder}{path}: split.count is {shown(count)}, but the name is not that of a part: "
            "parts are called NAME-00001-of-00003.gguf and so on, and lie in one folder. Give them "
            "their original names, or join them with llama.cpp's `llama-gguf-split --merge`."
        )
    return [f"{match[1]}-{number:05}-of-{match[3]}.gguf" for number in range(1, count + 1)]


def _check_part(header: GgufHeader, number: int, count: int, address: str) -> None:
    found = header.metadata.get("split.no", 0), header.metadata.get("split.count", 1)
    if count > 1 and found != (number, count):
        raise ModelFileFormatError(
            f"{address}: split.no and split.count are {found[0]} and {found[1]}, but by its name "
            f"it is part {number} of {count}, counted from 0. Download the part again."
        )


def _record(tensor: GgufTensor, file: str, folder: str) -> TensorRecord:
    if tensor.type.name not in READABLE_TYPES:
        raise UnknownQuantizationError(
            f"{folder}{file}: tensor {shown(tensor.name)} is of type {tensor.type.name}, which is "
            f"not supported. Supported are {', '.join(sorted(READABLE_TYPES))}: choose the "
            "model's file in such a quantisation, for example Q4_K_M, Q4_0 or Q8_0."
        )
    shape = tensor.shape
    if tensor.name.endswith(_VECTORS):
        shape = (math.prod(shape),)
    return TensorRecord(tensor.name, shape, tensor.type.name, file, tensor.offset, tensor.nbytes)


async def _floats(source: ModelSource, record: TensorRecord) -> tuple[float, ...]:
    if record.dtype != "F32":
        raise ModelFileFormatError(
            f"{source.url}{record.file}: tensor {shown(record.name)} is {record.dtype}, but must "
            "be F32. Make the file again with a current llama.cpp."
        )
    end = record.byte_offset + record.nbytes
    data = to_bytes(await source.read_range(record.file, record.byte_offset, end))
    values = array.array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    return tuple(values)
