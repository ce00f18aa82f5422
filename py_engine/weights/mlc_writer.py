"""Writes tensors in MLC's format: `params_shard_k.bin` and `tensor-cache.json`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from py_engine.weights.mlc import INDEX_FILES
from py_engine.weights.quantization import StoredTensor

SHARD_BYTES = 32 << 20


class _Shards:
    """Packs tensors into shards; a larger tensor has a shard of its own."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.records: list[dict[str, Any]] = []
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._pending: list[tuple[dict[str, Any], bytes]] = []
        self._size = 0

    def add(self, tensor: StoredTensor) -> None:
        little_endian = tensor.data.astype(tensor.data.dtype.newbyteorder("<"), copy=False)
        data = little_endian.tobytes()
        if self._pending and self._size + len(data) > self._shard_bytes:
            self.flush()
        record = {
            "name": tensor.name,
            "shape": list(tensor.data.shape),
            "dtype": tensor.dtype,
            "format": tensor.format,
            "nbytes": len(data),
            "byteOffset": self._size,
        }
        self._pending.append((record, data))
        self._size += len(data)

    def flush(self) -> None:
        if not self._pending:
            return
        path = f"params_shard_{len(self.records)}.bin"
        content = b"".join(data for _, data in self._pending)
        (self._folder / path).write_bytes(content)
        self.records.append(
            {
                "dataPath": path,
                "format": "raw-shard",
                "nbytes": len(content),
                "records": [record for record, _ in self._pending],
                "md5sum": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            }
        )
        self._pending, self._size = [], 0


def write_tensors(
    folder: Path, tensors: Iterable[StoredTensor], n_weights: int, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write shards of at most `shard_bytes` and their index into `folder`.

    `n_weights` is the number of weights before quantisation, for the index's `BitsPerParam`.
    """
    shards = _Shards(folder, shard_bytes)
    for tensor in tensors:
        shards.add(tensor)
    shards.flush()
    records = [record for shard in shards.records for record in shard["records"]]
    nbytes = sum(shard["nbytes"] for shard in shards.records)
    index = {
        "metadata": {
            "ParamSize": len(records),
            "ParamBytes": nbytes,
            "BitsPerParam": 8 * nbytes / max(n_weights, 1),
        },
        "records": shards.records,
    }
    (folder / INDEX_FILES[0]).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def count_weights(shapes: Iterable[tuple[int, ...]]) -> int:
    """Return the number of elements of tensors with these shapes."""
    return sum(math.prod(shape) for shape in shapes)
