"""The headers of safetensors files, read by ranges and checked as strictly as the library does.

A file is the length of its header (u64), the header (JSON: names to dtype, shape and offsets), and
the tensors without gaps. Source: https://github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import math
import struct
from typing import Any

from py_engine.errors import ModelFileFormatError, TruncatedFileError
from py_engine.json_fields import JsonFields
from py_engine.storage.host_bytes import to_bytes
from py_engine.storage.source import ModelSource, parse_json
from py_engine.weights.records import ELEMENT_BYTES, TensorRecord, is_inside

MAX_HEADER_BYTES = 100_000_000
"""The library's own limit."""

_FIRST_READ = 1 << 17  # holds the headers of most files, so that one request is enough
_LENGTH = struct.Struct("<Q")
_REMEDY = "Download the file again."


async def read_safetensors(source: ModelSource, path: str, size: int) -> dict[str, TensorRecord]:
    """Return the tensors of the file at `path`, which has `size` bytes, in the order of the file.

    Errors: TruncatedFileError, ModelFileFormatError, and those of the source.
    """
    address = f"{source.url}{path}"
    if size < _LENGTH.size:
        raise TruncatedFileError(
            f"{address} has {size} bytes, too few for a safetensors file. {_REMEDY}"
        )
    begin = to_bytes(await source.read_range(path, 0, min(size, _FIRST_READ)))
    length: int = _LENGTH.unpack_from(begin)[0]
    if length > MAX_HEADER_BYTES:
        raise ModelFileFormatError(
            f"{address} is not a safetensors file: its header would have {length} bytes, but "
            f"{MAX_HEADER_BYTES} is the most that is allowed. {_REMEDY}"
        )
    end = _LENGTH.size + length
    if end > size:
        raise TruncatedFileError(
            f"{address} has {size} bytes, but its header alone ends at {end}. {_REMEDY}"
        )
    if end > len(begin):
        begin += to_bytes(await source.read_range(path, len(begin), end))
    return _parse(begin[_LENGTH.size : end], path, address, size)


def _parse(header: bytes, path: str, address: str, size: int) -> dict[str, TensorRecord]:
    try:
        text = header.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFileFormatError(
            f"{address} is not a safetensors file: byte {error.start} of its header is not UTF-8. "
            f"{_REMEDY}"
        ) from error
    fields = JsonFields(parse_json(text, f"{address}, header"), f"{address}, header")
    begin = _LENGTH.size + len(header)
    entries = [name for name in fields.data if name != "__metadata__"]
    records = [_record(fields.object(name), name, path, begin) for name in entries]
    records.sort(key=lambda record: (record.byte_offset, record.nbytes))
    _check_places(records, begin, size, address)
    return {record.name: record for record in records}


def _record(fields: JsonFields, name: str, path: str, begin: int) -> TensorRecord:
    dtype, shape = fields.string("dtype"), fields.integers("shape")
    offsets = fields.integers("data_offsets")
    if dtype not in ELEMENT_BYTES:
        raise fields.invalid("dtype", f"one of {', '.join(ELEMENT_BYTES)}")
    nbytes = math.prod(shape) * ELEMENT_BYTES[dtype]
    if len(offsets) != 2 or offsets[1] - offsets[0] != nbytes:
        wanted = f"a begin and an end {nbytes} bytes apart, the size of {list(shape)} {dtype}"
        raise fields.invalid("data_offsets", wanted)
    return TensorRecord(name, shape, dtype, path, begin + offsets[0], nbytes)


def _check_places(records: list[TensorRecord], begin: int, size: int, address: str) -> None:
    """Refuse tensors that overlap or leave gaps, and a file that is not as long as they are."""
    for record in records:
        if record.byte_offset != begin:
            raise ModelFileFormatError(
                f"{address}: tensor {record.name!r} begins at byte {record.byte_offset}, but the "
                f"one before it ends at {begin}. {_REMEDY}"
            )
        begin += record.nbytes
    if size < begin:
        raise TruncatedFileError(
            f"{address} has {size} bytes, but its header says {begin}. {_REMEDY}"
        )
    if size > begin:
        raise ModelFileFormatError(
            f"{address} has {size} bytes, but its header says {begin}. {_REMEDY}"
        )


def shard_files(data: Any, path: str) -> list[str]:
    """Return the files that an index of shards (`weight_map`: tensor to file) names, sorted.

    Raises ModelFileFormatError.
    """
    files = JsonFields(data, path).object("weight_map")
    for name in files.data:
        if not is_inside(files.string(name)):
            raise files.invalid(name, "the path of a file in the model's folder")
    return sorted(set(files.data.values()))
