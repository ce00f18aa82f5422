"""Brings a model's weights from its files onto the GPU, as a plan says.

Bytes go from the source into buffers without passing through the wasm heap. Some reads are under
way while others are written, and no more than a bounded number of bytes is in host memory.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Iterator

from py_engine.errors import ConversionError
from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import Buffer, Device, Dispatch, Kernel, KernelSpec, Program
from py_engine.kernels.relay import PIECE_BYTES, REPORT_BYTES, piece, units
from py_engine.storage.host_bytes import reuse
from py_engine.storage.source import HostBytes, ModelSource, keeps_files
from py_engine.weights.plan import WeightPlan
from py_engine.weights.reads import OF_KEPT, OF_REMOTE, Read, Slice, plan_reads
from py_engine.weights.transfers import Relay

_UNWRITTEN_BYTES = 64 << 20
"""What the GPU may have left to copy before anything else is given to it."""

OnProgress = Callable[[int, int], object]


async def load_weights(
    device: Device,
    source: ModelSource,
    plan: WeightPlan,
    on_bytes: OnProgress,
    on_flow: Callable[[], object] = lambda: None,
) -> dict[str, Buffer]:
    """Load the weights of `plan`; return their buffers by the plan's names.

    `on_bytes(done, total)` counts the bytes that are read, and `on_flow` is called when some of
    them have been given to the GPU. When loading fails or is cancelled, nothing stays on the GPU
    and nothing goes on.

    Errors: those of the source (MissingFileError, NetworkError, TruncatedFileError), of the device,
    and ConversionError for a weight that is too large for its format.
    """
    loading = _Loading(device, source, plan, on_bytes, on_flow)
    try:
        async with device.check("loading the model's weights"):
            await loading.run()
    except BaseException:
        loading.destroy()
        raise
    return loading.buffers


class _Loading:
    """The state of one load."""

    def __init__(
        self,
        device: Device,
        source: ModelSource,
        plan: WeightPlan,
        on_bytes: OnProgress,
        on_flow: Callable[[], object],
    ) -> None:
        self.buffers: dict[str, Buffer] = {}
        self._on_flow = on_flow
        self._device = device
        self._source = source
        self._plan = plan
        size = OF_KEPT if keeps_files(source) else OF_REMOTE
        self._reads = tuple(plan_reads(plan.transfers, size.nbytes))
        self._in_flight = size.in_flight
        self._progress = _Progress(sum(read.nbytes for read in self._reads), on_bytes)
        self._relays = _Relays(device, self.buffers)
        self._fences: deque[tuple[asyncio.Future[None], int]] = deque()

    async def run(self) -> None:
        self._progress.report()
        pending = iter(self._reads)
        reading: deque[tuple[Read, asyncio.Future[HostBytes]]] = deque()
        self._read_ahead(pending, reading)
        try:
            # Before whatever else there is to compile, for which bytes need not wait.
            await self._relays.prepare(self._plan)
            async with self._device.check("making room for the model's weights"):
                for name, nbytes in self._plan.buffers.items():
                    self.buffers[name] = self._device.create_buffer(nbytes, name)
            while True:
                self._read_ahead(pending, reading)
                if not reading:
                    break
                read, data = reading.popleft()
                await self._write(read, part := await data)
                reuse(part)
                self._on_flow()
            await self._relays.finish()
        finally:
            await _cancelled([data for _, data in reading] + [fence for fence, _ in self._fences])

    def destroy(self) -> None:
        """Free what has been made."""
        self._relays.destroy()
        destroy_buffers(self.buffers.values())
        self.buffers.clear()

    def _read_ahead(
        self, pending: Iterator[Read], reading: deque[tuple[Read, asyncio.Future[HostBytes]]]
    ) -> None:
        while len(reading) < self._in_flight and (read := next(pending, None)):
            on_bytes = self._progress.counter()
            bytes_of = self._source.read_range(read.file, read.begin, read.end, on_bytes)
            reading.append((read, asyncio.ensure_future(bytes_of)))

    async def _write(self, read: Read, data: HostBytes) -> None:
        """Give the bytes to the GPU, once it has room for them."""
        while self._fences and sum(n for _, n in self._fences) + read.nbytes > _UNWRITTEN_BYTES:
            fence, _ = self._fences[0]
            await fence
            self._fences.popleft()
        for part in read.slices:
            offset = part.file_begin - read.begin
            if part.transfer.relays:
                self._relays.write(part, data, offset)
            else:
                self._copy(part, data, offset)
        self._fences.append((asyncio.ensure_future(self._device.synchronize()), read.nbytes))

    def _copy(self, part: Slice, data: HostBytes, offset: int) -> None:
        for copy in part.transfer.copies:
            begin, end = max(copy.begin, part.begin), min(copy.begin + copy.nbytes, part.end)
            if begin < end:
                self._device.write_buffer(
                    self.buffers[copy.target],
                    copy.offset + begin - copy.begin,
                    data,
                    offset + begin - part.begin,
                    end - begin,
                )


class _Relays:
    """The kernels that re-lay or convert, and what they work in."""

    def __init__(self, device: Device, buffers: dict[str, Buffer]) -> None:
        self._device = device
        self._buffers = buffers
        self._own: list[Buffer] = []
        self._kernels: dict[KernelSpec, Kernel] = {}
        self._programs: dict[tuple[KernelSpec, tuple[str, ...]], Program] = {}

    async def prepare(self, plan: WeightPlan) -> None:
        """Compile what the plan needs, and make room for its largest piece."""
        staged = [transfer for transfer in plan.transfers if transfer.relays]
        if not staged:
            return
        specs = list({relay.kernel: None for each in staged for relay in each.relays})
        self._kernels = dict(zip(specs, await self._device.compile(specs), strict=True))
        largest = max(transfer.nbytes for transfer in staged)
        for nbytes, label in (
            (largest, "weights staging"),
            (PIECE_BYTES, "weights piece"),
            (REPORT_BYTES, "weights report"),
        ):
            self._own.append(self._device.create_buffer(nbytes, label))

    def write(self, part: Slice, data: HostBytes, offset: int) -> None:
        """Stage bytes; with the last of a piece, run its kernels."""
        staging, sizes, _ = self._own
        # The queue runs in order: what was staged before has been used when this is written.
        self._device.write_buffer(staging, part.begin, data, offset, part.end - part.begin)
        for relay in part.transfer.relays if part.is_last else ():
            shape = piece(
                relay.rows,
                relay.columns,
                to_row=relay.to_row,
                rope_pairs=relay.rope_pairs,
                keep=relay.keep,
                width=relay.width,
            )
            self._device.write_buffer(sizes, 0, shape)
            program = self._program(relay)
            program.set_n_tokens(units(relay.kernel, relay.rows, relay.columns))
            program.submit()

    async def finish(self) -> None:
        """Wait for all of it. Raises ConversionError for what did not fit its format."""
        if not self._own:
            await self._device.synchronize()
            return
        report = await self._device.read_buffer(self._own[2])
        self.destroy()
        if any(report[:4]):
            raise too_large(report)

    def destroy(self) -> None:
        """Free the working buffers; may be called twice."""
        destroy_buffers(self._own)
        self._own.clear()

    def _program(self, relay: Relay) -> Program:
        key = (relay.kernel, relay.targets)
        if key not in self._programs:
            targets = (self._buffers[name] for name in relay.targets)
            dispatch = Dispatch(self._kernels[relay.kernel], (*self._own, *targets))
            label = f"{relay.kernel.label}: {relay.targets[0]}"
            self._programs[key] = self._device.program([dispatch], label)
        return self._programs[key]


class _Progress:
    """Counts the bytes of all reads together."""

    def __init__(self, total: int, on_bytes: OnProgress) -> None:
        self._total = total
        self._on_bytes = on_bytes
        self._done = 0

    def report(self) -> None:
        self._on_bytes(self._done, self._total)

    def counter(self) -> Callable[[int], None]:
        """Return what counts one read."""
        before = 0

        def count(n: int) -> None:
            nonlocal before
            self._done += n - before
            before = n
            self.report()

        return count


def too_large(report: bytes) -> ConversionError:
    """Return the error for what the kernels reported: the largest weight, f32."""
    largest = struct.unpack_from("<f", report)[0]
    return ConversionError(
        f"The model's largest weight is {largest:g}, too large for f16. Choose a quantization with "
        "f32 in its name, or download the model again."
    )


async def _cancelled(futures: list[asyncio.Future[object]]) -> None:
    """End what is still under way."""
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)
