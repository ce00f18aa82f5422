"""A GPU whose memory may run out, and which counts what it copies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from py_engine.errors import OutOfMemoryError
from tests.support.numpy_device import NumpyBuffer, NumpyDevice


class SmallGpu(NumpyDevice):
    """A GPU with memory for `budget` bytes, which counts what it copies.

    As in WebGPU, a failed allocation gives a buffer, and an error at the end of the check.
    """

    def __init__(self, budget: int = 1 << 30) -> None:
        super().__init__()
        self.budget = budget
        self.copied = 0
        self._is_full = False

    @property
    def held(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers if buffer.data is not None)

    def create_buffer(self, nbytes: int, label: str, *, is_uniform: bool = False) -> NumpyBuffer:
        self._is_full |= self.held + nbytes > self.budget
        return super().create_buffer(nbytes, label, is_uniform=is_uniform)

    def copy_buffer(
        self, source: Any, target: Any, nbytes: int, offset: int = 0, source_offset: int = 0
    ) -> None:
        self.copied += nbytes
        super().copy_buffer(source, target, nbytes, offset, source_offset)

    @asynccontextmanager
    async def check(self, what: str) -> AsyncIterator[None]:
        yield
        if self._is_full:
            self._is_full = False
            raise OutOfMemoryError(f"The GPU refused while {what}.")
