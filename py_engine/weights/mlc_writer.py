"""Writes models in MLC's format: `params_shard_k.bin`, `tensor-cache.json`, and a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from py_engine.storage.expected import MANIFEST_FILE
from py_engine.weights.mlc import INDEX_FILES
from py_engine.weights.quantization import StoredTensor

SHARD_BYTES = 32 << 20
"""What shards have at most; a larger tensor has one of its own."""

MANIFEST_PIECE_BYTES = 8 << 20
"""Files larger than that have hashes of their pieces too, so that these can be repaired alone."""


class MlcWriter:
    """Packs tensors into shards in `folder`. `n_weights` is for the index: what was quantised."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.n_weights = 0
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._shards: list[dict[str, Any]] = []
        self._pending: list[tuple[dict[str, Any], bytes]] = []
        self._size = 0

    def add(self, tensor: StoredTensor) -> None:
        """Write a tensor; it may be only with the next one that it comes into a file."""
        little_endian = tensor.data.astype(tensor.data.dtype.newbyteorder("<"), copy=False)
        data = little_endian.tobytes()
        if self._pending and self._size + len(data) > self._shard_bytes:
            self._flush()
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

    def finish(self) -> None:
        """Write the last shard and the index."""
        self._flush()
        nbytes = sum(shard["nbytes"] for shard in self._shards)
        metadata = {
            "ParamSize": sum(len(shard["records"]) for shard in self._shards),
            "ParamBytes": nbytes,
            "BitsPerParam": 8 * nbytes / max(self.n_weights, 1),
        }
        write_json(self._folder / INDEX_FILES[0], {"metadata": metadata, "records": self._shards})

    def _flush(self) -> None:
        if not self._pending:
            return
        path = f"params_shard_{len(self._shards)}.bin"
        content = b"".join(data for _, data in self._pending)
        (self._folder / path).write_bytes(content)
        self._shards.append(
            {
                "dataPath": path,
                "format": "raw-shard",
                "nbytes": len(content),
                "records": [record for record, _ in self._pending],
                "md5sum": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            }
        )
        self._pending, self._size = [], 0


def write_manifest(folder: Path) -> None:
    """Write the sizes and SHA-256 of a model's files, which downloads are verified by.

    All in `folder` count but texts about the model (*.md).
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".md")
    files = {path.name: _entry(path) for path in paths if path.name != MANIFEST_FILE}
    write_json(folder / MANIFEST_FILE, {"version": 1, "files": files})


def _entry(path: Path) -> dict[str, Any]:
    """Return a file's entry in the manifest."""
    whole, pieces = hashlib.sha256(), []
    with path.open("rb") as stream:
        while piece := stream.read(MANIFEST_PIECE_BYTES):
            whole.update(piece)
            pieces.append(hashlib.sha256(piece).hexdigest())
    entry: dict[str, Any] = {"size": path.stat().st_size, "sha256": whole.hexdigest()}
    if len(pieces) > 1:
        entry |= {"piece_bytes": MANIFEST_PIECE_BYTES, "pieces": pieces}
    return entry


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write an indented JSON file."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
