"""The index of a model in MLC's format: `tensor-cache.json`, or the older `ndarray-cache.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from py_engine.errors import MissingFileError
from py_engine.json_fields import JsonFields
from py_engine.storage.source import NOT_THERE, ModelSource
from py_engine.weights.records import ELEMENT_BYTES, TensorRecord, is_inside

INDEX_FILES = ("tensor-cache.json", "ndarray-cache.json")

BF16_FORMAT = "f32-to-bf16"
"""The format of a float32 tensor that is stored as bfloat16."""

MLC_DTYPES: Mapping[str, str] = {
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int8": "I8",
    "uint8": "U8",
}
"""MLC's element types under the names of `TensorRecord`."""


@dataclass(frozen=True)
class TensorCache:
    """The index at `path`: shards with their sizes in bytes, and tensors by name."""

    path: str
    shards: dict[str, int]
    tensors: dict[str, TensorRecord]


async def read_tensor_cache(source: ModelSource) -> TensorCache:
    """Read and check a model's index.

    Errors: MissingFileError when neither name exists, ModelFileFormatError for a bad field or for
    tensors that do not fit their shape or their shard.
    """
    for path in INDEX_FILES:
        try:
            data = await source.read_json(path)
        except NOT_THERE:
            continue
        return parse_tensor_cache(data, path)
    raise MissingFileError(
        f"{source.url} has neither {INDEX_FILES[0]} nor {INDEX_FILES[1]}, a list of its weights. "
        "Correct the model's address, or convert the model with `python3 build.py convert`."
    )


def parse_tensor_cache(data: object, path: str) -> TensorCache:
    """Check the content of an index. Raises ModelFileFormatError."""
    shards: dict[str, int] = {}
    tensors: dict[str, TensorRecord] = {}
    for shard in JsonFields(data, path).objects("records"):
        name = shard.string("dataPath")
        if not is_inside(name):
            raise shard.invalid("dataPath", "the path of a file in the model's folder")
        if shard.string("format", "raw-shard") != "raw-shard":
            raise shard.invalid("format", '"raw-shard"')
        if name in shards:
            raise shard.invalid("dataPath", "named once: another record has it too")
        shards[name] = shard.integer("nbytes", minimum=0)
        for fields in shard.objects("records"):
            record = _tensor(fields, name, shards[name])
            if record.name in tensors:
                raise fields.invalid("name", "named once: another record has it too")
            tensors[record.name] = record
    return TensorCache(path, shards, tensors)


def _tensor(fields: JsonFields, shard: str, shard_nbytes: int) -> TensorRecord:
    stored, storage = fields.string("dtype"), fields.string("format", "raw")
    if stored not in MLC_DTYPES:
        raise fields.invalid("dtype", f"one of {', '.join(MLC_DTYPES)}")
    if storage != "raw" and (storage, stored) != (BF16_FORMAT, "float32"):
        raise fields.invalid("format", f'"raw", or "{BF16_FORMAT}" for float32')
    record = TensorRecord(
        name=fields.string("name"),
        shape=fields.integers("shape"),
        dtype="BF16" if storage == BF16_FORMAT else MLC_DTYPES[stored],
        file=shard,
        byte_offset=fields.integer("byteOffset", minimum=0),
        nbytes=fields.integer("nbytes", minimum=0),
    )
    nbytes = math.prod(record.shape) * ELEMENT_BYTES[record.dtype]
    if record.nbytes != nbytes:
        raise fields.invalid("nbytes", f"{nbytes}, the size of {list(record.shape)} {record.dtype}")
    if record.byte_offset + nbytes > shard_nbytes:
        wanted = f"at most {shard_nbytes - nbytes}, so that {record.name} ends within {shard}"
        raise fields.invalid("byteOffset", wanted)
    return record
