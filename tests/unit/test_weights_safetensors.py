"""Headers of safetensors files: what is read with how many requests, and what is refused."""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.errors import ModelFileError, ModelFileFormatError, TruncatedFileError
from py_engine.weights.records import TensorRecord
from py_engine.weights.safetensors import read_safetensors, shard_files
from tests.support.memory_source import MemorySource
from tests.support.safetensors_file import write_safetensors

HEADER: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [5], "data_offsets": [24, 34]},
    "empty": {"dtype": "I64", "shape": [0, 7], "data_offsets": [34, 34]},
}


def packed(header: Any, nbytes: int = 34) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(nbytes)


def read(data: bytes) -> dict[str, TensorRecord]:
    source = MemorySource({"m.safetensors": data})
    return asyncio.run(read_safetensors(source, "m.safetensors", len(data)))


def with_entry(**changes: Any) -> dict[str, Any]:
    return {**HEADER, "b": {**HEADER["b"], **changes}}


def test_records() -> None:
    data = packed(HEADER)
    start = len(data) - 34
    assert list(read(data).values()) == [
        TensorRecord("a", (2, 3), "F32", "m.safetensors", start, 24),
        TensorRecord("b", (5,), "BF16", "m.safetensors", start + 24, 10),
        TensorRecord("empty", (0, 7), "I64", "m.safetensors", start + 34, 0),
    ]


def test_long_header_takes_a_second_request(tmp_path: Path) -> None:
    names = {f"a long name of a tensor {i:>100}": np.zeros(1, np.float32) for i in range(2000)}
    write_safetensors(tmp_path / "m", names)
    source = MemorySource({"m": (tmp_path / "m").read_bytes()})
    found = asyncio.run(read_safetensors(source, "m", asyncio.run(source.size("m"))))
    assert set(found) == set(names)
    assert len(source.requested) == 2


def test_records_equal_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    tensors = {"x": np.arange(6, dtype=np.float16), "y": np.ones((2, 2), np.uint8)}
    library.save_file(tensors, tmp_path / "m")
    data = (tmp_path / "m").read_bytes()
    for name, record in read(data).items():
        stored = data[record.byte_offset : record.byte_offset + record.nbytes]
        assert stored == tensors[name].tobytes()
        assert record.shape == tensors[name].shape


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"\x01", TruncatedFileError, r"m\.safetensors has 1 bytes, too few"),
        (struct.pack("<Q", 50) + b"{", TruncatedFileError, r"its header alone ends at 58\."),
        (struct.pack("<Q", 1 << 40) + b"{", ModelFileFormatError, r"would have 1099511627776 byt"),
        (packed(b"[" * 90_000), ModelFileFormatError, r"header is not JSON that can be"),
        (packed(b"\xff{}"), ModelFileFormatError, r"byte 0 of its header is not UTF-8"),
        (packed([]), ModelFileFormatError, r"header is \[\], but must be a JSON object"),
        (packed({"a": 3}), ModelFileFormatError, r"header: a is 3, but must be a JSON object"),
        (packed(with_entry(dtype="F7")), ModelFileFormatError, r"b\.dtype is 'F7', but must be on"),
        (packed(with_entry(shape=[-5])), ModelFileFormatError, r"b\.shape is \[-5\]"),
        (
            packed(with_entry(shape=[6])),
            ModelFileFormatError,
            r"b\.data_offsets is \[24, 34\], but",
        ),
        (packed(with_entry(data_offsets=[20, 30])), ModelFileFormatError, r"'b' begins at byte"),
        (packed(with_entry(data_offsets=[26, 36])), ModelFileFormatError, r"'b' begins at byte"),
        (packed(with_entry(data_offsets=[24])), ModelFileFormatError, r"b\.data_offsets is \[24\]"),
        (packed(HEADER, 33), TruncatedFileError, r"has \d+ bytes, but its header says \d+\. Dow"),
        (packed(HEADER, 35), ModelFileFormatError, r"has \d+ bytes, but its header says \d+\. Do"),
    ],
)
def test_damaged_files_are_refused(data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as found:
        read(data)
    assert isinstance(found.value, ModelFileError)


def test_index_of_shards() -> None:
    index = {"metadata": {}, "weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}
    assert shard_files(index, "index.json") == ["a.safetensors", "b.safetensors"]
    for file in ("../a.safetensors", "/etc/passwd", "a//b", "c:\\x", 3):
        with pytest.raises(ModelFileFormatError, match=r"^index\.json: weight_map\.x is "):
            shard_files({"weight_map": {"x": file}}, "index.json")
