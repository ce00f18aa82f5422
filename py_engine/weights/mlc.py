"""The index of a model in MLC's format: `tensor-cache.json`, or the older `ndarray-cache.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from py_engine.errors import MissingFileError
from py_engine.json_fields import JsonFields
from py_engine.storage.source import ModelSource

INDEX_FILES = ("tensor-cache.json", "ndarray-cache.json")

ELEMENT_SIZES = {
    "uint32": 4,
    "int32": 4,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int8": 1,
    "uint8": 1,
}
BF16_FORMAT = "f32-to-bf16"


@dataclass(frozen=True)
class TensorRecord:
    """Where a tensor lies in its shard, in bytes, and how it is stored (little-endian, C order)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    format: str
    nbytes: int
    shard: str
    byte_offset: int

    @property
    def stored_dtype(self) -> str:
        """The element type in the file: f32 tensors may be stored as bf16."""
        return "bfloat16" if self.format == BF16_FORMAT else self.dtype


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
        except MissingFileError:
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
    record = TensorRecord(
        name=fields.string("name"),
        shape=fields.integers("shape"),
        dtype=fields.string("dtype"),
        format=fields.string("format", "raw"),
        nbytes=fields.integer("nbytes", minimum=0),
        shard=shard,
        byte_offset=fields.integer("byteOffset", minimum=0),
    )
    if record.dtype not in ELEMENT_SIZES:
        raise fields.invalid("dtype", f"one of {', '.join(ELEMENT_SIZES)}")
    if record.format != "raw" and (record.format, record.dtype) != (BF16_FORMAT, "float32"):
        raise fields.invalid("format", f'"raw", or "{BF16_FORMAT}" for float32')
    nbytes = math.prod(record.shape) * ELEMENT_SIZES[record.stored_dtype]
    if record.nbytes != nbytes:
        wanted = f"{nbytes}, the size of {list(record.shape)} {record.stored_dtype}"
        raise fields.invalid("nbytes", wanted)
    if record.byte_offset + nbytes > shard_nbytes:
        wanted = f"at most {shard_nbytes - nbytes}, so that {record.name} ends within {shard}"
        raise fields.invalid("byteOffset", wanted)
    return record
