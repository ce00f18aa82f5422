"""Brings a model's tensors from its files onto the GPU, without passing the wasm heap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from py_engine.errors import (
    MissingTensorError,
    ModelFileFormatError,
    TensorShapeError,
    TruncatedFileError,
)
from py_engine.gpu.types import Buffer, Device, Dispatch, Kernel
from py_engine.kernels.convert import convert_spec
from py_engine.storage.source import HostBytes, ModelSource, byte_length
from py_engine.weights.mlc import TensorCache, read_tensor_cache
from py_engine.weights.plan import Layout, WeightSlot
from py_engine.weights.records import ELEMENT_BYTES, TensorRecord

Converted = Literal["f16", "bf16"]

_STORED_DTYPES: dict[Layout, dict[str, Converted | None]] = {
    "u32": {"U32": None},
    "f16": {"F16": None},
    "f32": {"F32": None, "F16": "f16", "BF16": "bf16"},
}
"""For each layout, the element types it can be made of, and the conversion that takes."""


@dataclass(frozen=True)
class _Upload:
    """One tensor on its way: where it is stored, and the conversion it needs, if any."""

    record: TensorRecord
    converted: Converted | None


async def load_weights(
    device: Device,
    source: ModelSource,
    slots: Sequence[WeightSlot],
    on_bytes: Callable[[int, int], None],
) -> dict[str, Buffer]:
    """Load the tensors of `slots` and return their buffers by name.

    `on_bytes(done, total)` counts the bytes of the shards that are needed. Everything that the
    index can tell is checked before the first shard is fetched. When loading fails or is
    cancelled, all buffers made so far are destroyed.

    Errors: MissingFileError, NetworkError, TruncatedFileError, ModelFileFormatError,
    MissingTensorError, TensorShapeError, and those of the device.
    """
    cache = await read_tensor_cache(source)
    uploads = [_checked(cache, slot) for slot in slots]
    loading = _Loading(device, source, cache, uploads)
    try:
        async with device.check("loading the model's weights"):
            await loading.run(on_bytes)
    except BaseException:
        loading.destroy()
        raise
    return loading.buffers


def _checked(cache: TensorCache, slot: WeightSlot) -> _Upload:
    record = cache.tensors.get(slot.name)
    if record is None:
        raise MissingTensorError(
            f"{cache.path} has no tensor {slot.name!r}, which the model's configuration asks for "
            f"with shape {list(slot.shape)}. Use weights and configuration of the same model."
        )
    if record.shape != slot.shape:
        raise TensorShapeError(
            f"{cache.path}: tensor {slot.name!r} has shape {list(record.shape)}, but the model's "
            f"configuration asks for {list(slot.shape)}. Use weights and configuration of the same "
            "model."
        )
    accepted = _STORED_DTYPES[slot.layout]
    if record.dtype not in accepted:
        raise TensorShapeError(
            f"{cache.path}: tensor {slot.name!r} is {record.dtype}, but the model's "
            f"quantization asks for {' or '.join(accepted)}. Use weights and configuration of the "
            "same model."
        )
    return _Upload(record, accepted[record.dtype])


class _Loading:
    """The state of one load: the buffers made so far, and one staging buffer for conversions."""

    def __init__(
        self,
        device: Device,
        source: ModelSource,
        cache: TensorCache,
        uploads: Sequence[_Upload],
    ) -> None:
        self.buffers: dict[str, Buffer] = {}
        self._device = device
        self._source = source
        self._cache = cache
        self._uploads = uploads
        self._kernels: dict[tuple[Converted, int], Kernel] = {}
        self._staging: Buffer | None = None

    async def run(self, on_bytes: Callable[[int, int], None]) -> None:
        await self._prepare_conversions()
        needed = {upload.record.file for upload in self._uploads}
        shards = {name: nbytes for name, nbytes in self._cache.shards.items() if name in needed}
        total, done = sum(shards.values()), 0
        on_bytes(0, total)
        for name, nbytes in shards.items():
            data = await self._source.read_bytes(name, self._shifted(on_bytes, done, total))
            self._check_length(name, byte_length(data))
            for upload in self._uploads:
                if upload.record.file == name:
                    self._upload(upload, data)
            done += nbytes
        on_bytes(done, total)
        await self._device.synchronize()
        self._free_staging()

    @staticmethod
    def _shifted(
        on_bytes: Callable[[int, int], None], done: int, total: int
    ) -> Callable[[int], None]:
        return lambda n: on_bytes(done + n, total)

    def destroy(self) -> None:
        """Free what has been made."""
        self._free_staging()
        for buffer in self.buffers.values():
            buffer.destroy()
        self.buffers.clear()

    async def _prepare_conversions(self) -> None:
        conversions = [upload for upload in self._uploads if upload.converted]
        if not conversions:
            return
        # Tensors of one size share a kernel, so that a model needs only a handful of them.
        sizes = sorted({(cast(Converted, u.converted), u.record.elements) for u in conversions})
        kernels = await self._device.compile([convert_spec(kind, n) for kind, n in sizes])
        self._kernels = dict(zip(sizes, kernels, strict=True))
        largest = max(upload.record.nbytes for upload in conversions)
        self._staging = self._device.create_buffer(largest, "weights staging")

    def _check_length(self, shard: str, found: int) -> None:
        wanted = self._cache.shards[shard]
        if found < wanted:
            raise TruncatedFileError(
                f"{self._source.url}{shard} has {found} bytes, but {self._cache.path} says "
                f"{wanted}. Download the file again."
            )
        if found > wanted:
            raise ModelFileFormatError(
                f"{self._source.url}{shard} has {found} bytes, but {self._cache.path} says "
                f"{wanted}. Use an index and shards of the same model."
            )

    def _upload(self, upload: _Upload, data: HostBytes) -> None:
        record = upload.record
        size = 4 if upload.converted else ELEMENT_BYTES[record.dtype]
        buffer = self._device.create_buffer(upload.record.elements * size, record.name)
        self.buffers[record.name] = buffer
        if not upload.converted or self._staging is None:
            self._device.write_buffer(buffer, 0, data, record.byte_offset, record.nbytes)
            return
        # The queue runs in order, so the staging buffer can be rewritten right after the submit.
        self._device.write_buffer(self._staging, 0, data, record.byte_offset, record.nbytes)
        kernel = self._kernels[upload.converted, upload.record.elements]
        dispatch = Dispatch(kernel, (self._staging, buffer))
        self._device.program([dispatch], f"convert {record.name}").submit()

    def _free_staging(self) -> None:
        if self._staging is not None:
            self._staging.destroy()
            self._staging = None
