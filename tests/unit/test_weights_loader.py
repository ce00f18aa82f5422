"""Loading weights: what arrives on the device, and every error, on the device in NumPy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from py_engine.errors import (
    MissingFileError,
    MissingTensorError,
    ModelFileFormatError,
    TensorShapeError,
    TruncatedFileError,
)
from py_engine.gpu.types import Kernel, KernelSpec
from py_engine.weights.loader import load_weights
from py_engine.weights.plan import WeightSlot
from py_engine.weights.quantization import bf16_from_f32
from tests.support.memory_source import MemorySource
from tests.support.numpy_device import NumpyDevice

CODES = np.arange(8, dtype=np.uint32).reshape(2, 4)
HALFS = np.array([1.5, -2.25, 65504.0], np.float16)
BF16 = np.array([1.0, -3.5, 2.0**100, -0.0, 0.1], np.float32)
SINGLES = np.array([0.1, -7.0], np.float32)

Stored = dict[str, tuple[str, str, np.ndarray]]

STORED: dict[str, Stored] = {
    "shard_0.bin": {
        "codes": ("uint32", "raw", CODES),
        "halfs": ("float16", "raw", HALFS),
        "unused": ("float16", "raw", HALFS),
    },
    "shard_1.bin": {
        "bf16": ("float32", "f32-to-bf16", bf16_from_f32(BF16)),
        "singles": ("float32", "raw", SINGLES),
    },
    "shard_2.bin": {"elsewhere": ("float16", "raw", HALFS)},
}

SLOTS = [
    WeightSlot("codes", (2, 4), "u32"),
    WeightSlot("halfs", (3,), "f32"),
    WeightSlot("bf16", (5,), "f32"),
    WeightSlot("singles", (2,), "f32"),
]


def make_source(stored: dict[str, Stored] = STORED) -> MemorySource:
    files: dict[str, str | bytes] = {}
    shards = []
    for path, tensors in stored.items():
        records, data = [], b""
        for name, (dtype, storage, values) in tensors.items():
            records.append(
                {
                    "name": name,
                    "shape": list(values.shape),
                    "dtype": dtype,
                    "format": storage,
                    "nbytes": values.nbytes,
                    "byteOffset": len(data),
                }
            )
            data += values.tobytes()
        files[path] = data
        shards.append({"dataPath": path, "nbytes": len(data), "records": records})
    files["tensor-cache.json"] = json.dumps({"records": shards})
    return MemorySource(files)


class CountingDevice(NumpyDevice):
    """Remembers the labels of the kernels it compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled: list[str] = []

    async def compile(
        self, specs: Sequence[KernelSpec], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Kernel]:
        self.compiled += [spec.label for spec in specs]
        return await super().compile(specs, on_progress)


def load(
    source: MemorySource, slots: Sequence[WeightSlot] = SLOTS, device: Any = None
) -> dict[str, Any]:
    made = device or NumpyDevice()
    return asyncio.run(load_weights(made, source, slots, lambda done, total: None))


def test_every_storage_arrives_as_its_layout() -> None:
    buffers = load(make_source())
    assert buffers["codes"].view(np.uint32)[:8].tolist() == CODES.ravel().tolist()
    assert buffers["halfs"].view(np.float32)[:3].tolist() == HALFS.tolist()
    assert buffers["singles"].view(np.float32)[:2].tolist() == SINGLES.tolist()
    rounded = (bf16_from_f32(BF16).astype(np.uint32) << 16).view(np.float32)
    assert buffers["bf16"].view(np.float32)[:5].tolist() == rounded.tolist()


def test_halfs_stay_halfs_in_their_own_layout() -> None:
    buffers = load(make_source(), [WeightSlot("halfs", (3,), "f16")])
    assert buffers["halfs"].view(np.float16)[:3].tolist() == HALFS.tolist()


def test_progress_counts_the_shards_that_are_needed() -> None:
    source, seen = make_source(), []
    total = sum(len(source.files[f"shard_{i}.bin"]) for i in (0, 1))

    def on_bytes(done: int, of: int) -> None:
        seen.append((done, of))

    asyncio.run(load_weights(NumpyDevice(), source, SLOTS, on_bytes))
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)
    assert source.requested == ["tensor-cache.json", "shard_0.bin", "shard_1.bin"]


def test_staging_is_freed_and_kernels_are_shared() -> None:
    stored = {"s.bin": {f"norm{i}": ("float16", "raw", HALFS) for i in range(20)}}
    slots = [WeightSlot(f"norm{i}", (3,), "f32") for i in range(20)]
    device = CountingDevice()
    load(make_source(stored), slots, device)
    assert len(device.compiled) == 1
    assert sorted(device.live_buffers) == sorted(slot.name for slot in slots)


def test_nothing_is_compiled_when_nothing_is_converted() -> None:
    device = CountingDevice()
    load(make_source(), SLOTS[:1], device)
    assert device.compiled == []


@pytest.mark.parametrize(
    ("slot", "error", "message"),
    [
        (
            WeightSlot("lost", (4,), "f32"),
            MissingTensorError,
            r"tensor-cache\.json has no tensor 'lost'.*shape \[4\]\. Use weights and config",
        ),
        (
            WeightSlot("codes", (2, 8), "u32"),
            TensorShapeError,
            r"tensor-cache\.json: tensor 'codes' has shape \[2, 4\], but .* \[2, 8\]\. Use",
        ),
        (
            WeightSlot("codes", (2, 4), "f16"),
            TensorShapeError,
            r"tensor 'codes' is U32, but the model's quantization asks for F16\. Use",
        ),
        (
            WeightSlot("bf16", (5,), "u32"),
            TensorShapeError,
            r"tensor 'bf16' is BF16, but .* asks for U32",
        ),
    ],
)
def test_index_is_checked_before_anything_is_fetched(
    slot: WeightSlot, error: type[Exception], message: str
) -> None:
    source, device = make_source(), NumpyDevice()
    with pytest.raises(error, match=message):
        load(source, [*SLOTS, slot], device)
    assert source.requested == ["tensor-cache.json"]
    assert device.buffers == []


def test_missing_shard() -> None:
    source, device = make_source(), NumpyDevice()
    del source.files["shard_1.bin"]
    with pytest.raises(MissingFileError, match=r"shard_1\.bin"):
        load(source, device=device)
    assert device.buffers
    assert device.live_buffers == []


def test_truncated_shard() -> None:
    source, device = make_source(), NumpyDevice()
    data = source.files["shard_1.bin"]
    source.files["shard_1.bin"] = data[:-1]
    wanted = rf"memory:/model/shard_1\.bin has {len(data) - 1} bytes, but .* {len(data)}\. Download"
    with pytest.raises(TruncatedFileError, match=wanted):
        load(source, device=device)
    assert device.live_buffers == []


def test_shard_of_another_model() -> None:
    source, device = make_source(), NumpyDevice()
    source.files["shard_1.bin"] += b"more"  # type: ignore[operator]
    with pytest.raises(ModelFileFormatError, match=r"shard_1\.bin has .*index and shards"):
        load(source, device=device)
    assert device.live_buffers == []


def test_bad_json() -> None:
    source, device = make_source(), NumpyDevice()
    source.files["tensor-cache.json"] = '{"records": [}'
    with pytest.raises(ModelFileFormatError, match=r"tensor-cache\.json"):
        load(source, device=device)
    assert device.buffers == []


def test_failing_device_leaves_nothing() -> None:
    class Failing(NumpyDevice):
        def create_buffer(self, nbytes: int, label: str) -> Any:
            if label == "bf16":
                raise MemoryError(label)
            return super().create_buffer(nbytes, label)

    device = Failing()
    with pytest.raises(MemoryError):
        load(make_source(), device=device)
    assert device.buffers
    assert device.live_buffers == []


def test_cancelled_load_leaves_nothing() -> None:
    class Stalling(MemorySource):
        async def read_bytes(
            self, path: str, on_bytes: Callable[[int], None] | None = None
        ) -> bytes:
            if path == "shard_1.bin":
                await asyncio.Event().wait()
            return await super().read_bytes(path, on_bytes)

    async def cancelled() -> list[str]:
        device = NumpyDevice()
        source = Stalling(make_source().files)
        task = asyncio.ensure_future(load_weights(device, source, SLOTS, lambda done, total: None))
        while not device.live_buffers:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert device.buffers
        return device.live_buffers

    assert asyncio.run(cancelled()) == []
