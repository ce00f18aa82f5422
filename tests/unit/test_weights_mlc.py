"""The index of MLC's files: its two names, and every way in which it can be wrong."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest

from py_engine.errors import MissingFileError, ModelFileFormatError
from py_engine.weights.mlc import parse_tensor_cache, read_tensor_cache
from tests.support.memory_source import MemorySource

INDEX: dict[str, Any] = {
    "metadata": {"ParamSize": 2},
    "records": [
        {
            "dataPath": "params_shard_0.bin",
            "format": "raw-shard",
            "nbytes": 40,
            "records": [
                {
                    "name": "a.q_weight",
                    "shape": [2, 4],
                    "dtype": "uint32",
                    "format": "raw",
                    "nbytes": 32,
                    "byteOffset": 0,
                },
                {
                    "name": "a.q_scale",
                    "shape": [2, 1],
                    "dtype": "float32",
                    "format": "f32-to-bf16",
                    "nbytes": 4,
                    "byteOffset": 32,
                },
            ],
        }
    ],
}


def changed(path: str, value: Any) -> Any:
    """Return the index with one value changed; `path` is like "records.0.nbytes"."""
    index = copy.deepcopy(INDEX)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    node = index
    for key in parents:
        node = node[key]
    node[last] = value
    return index


@pytest.mark.parametrize("name", ["tensor-cache.json", "ndarray-cache.json"])
def test_both_names_are_read(name: str) -> None:
    cache = asyncio.run(read_tensor_cache(MemorySource({name: json.dumps(INDEX)})))
    assert cache.path == name
    assert cache.shards == {"params_shard_0.bin": 40}
    scale = cache.tensors["a.q_scale"]
    assert (scale.shape, scale.byte_offset, scale.nbytes) == ((2, 1), 32, 4)
    assert (scale.dtype, scale.file) == ("BF16", "params_shard_0.bin")
    assert cache.tensors["a.q_weight"].dtype == "U32"


def test_newer_name_goes_first() -> None:
    source = MemorySource({"tensor-cache.json": json.dumps(INDEX), "ndarray-cache.json": "[]"})
    assert asyncio.run(read_tensor_cache(source)).path == "tensor-cache.json"
    assert source.requested == ["tensor-cache.json"]


def test_missing_index_names_both_files() -> None:
    with pytest.raises(MissingFileError, match=r"tensor-cache\.json nor ndarray-cache\.json"):
        asyncio.run(read_tensor_cache(MemorySource({})))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("records", None, r"^index\.json: records is missing"),
        ("records.0", 3, r"records\[0\] is 3"),
        ("records.0.dataPath", None, r"records\[0\]\.dataPath is missing"),
        (
            "records.0.dataPath",
            "../secret.bin",
            r"dataPath is '../secret.bin', but must be the path",
        ),
        ("records.0.format", "zip", r"records\[0\]\.format is 'zip', but must be \"raw-shard\""),
        ("records.0.nbytes", -1, r"records\[0\]\.nbytes is -1"),
        ("records.0.records.0.shape", [2, -4], r"records\[0\]\.records\[0\]\.shape is \[2, -4\]"),
        ("records.0.records.0.dtype", "int4", r"dtype is 'int4', but must be one of uint32"),
        ("records.0.records.0.format", "f32-to-bf16", r"format is 'f32-to-bf16'"),
        ("records.0.records.1.format", "lz4", r"records\[1\]\.format is 'lz4'"),
        ("records.0.records.0.nbytes", 31, r"nbytes is 31, but must be 32, the size of \[2, 4\]"),
        ("records.0.records.1.byteOffset", 38, r"byteOffset is 38, but must be at most 36"),
        ("records.0.records.1.name", "a.q_weight", r"name is 'a.q_weight', but must be named once"),
        ("records", [INDEX["records"][0]] * 2, r"dataPath is 'params_shard_0.bin', but must be na"),
    ],
)
def test_wrong_field_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(ModelFileFormatError, match=message):
        parse_tensor_cache(changed(path, value), "index.json")
