"""Kernels that compile while a model loads and, where that takes longer, while it is in use.

A model takes prompts as soon as its weights are there: whoever submits a program waits for its
kernels first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

from py_engine.gpu.types import Device, Kernel, KernelSpec
from py_engine.models.base import LoadProgress

Kernels = Mapping[KernelSpec, Kernel]
"""Kernels that are compiled, or compiling."""


async def until_cores_are_free(device: Device, loading: asyncio.Future[Any]) -> None:
    """Wait until compiling holds up no load: an adapter on the CPU compiles with the same cores.

    `loading` loads the weights. Raises what that raises.
    """
    if device.info.is_fallback:
        await asyncio.wait([loading])
        loading.result()


class KernelGate:
    """Lets a model's programs wait for their kernels.

    Those `for_decode` are the ones that nothing but a step of decode needs.
    """

    def __init__(
        self, device: Device, kernels: Kernels, for_decode: Collection[KernelSpec] = ()
    ) -> None:
        self._device = device
        self._all = list(kernels.values())
        self._for_chunk = [each for spec, each in kernels.items() if spec not in for_decode]

    @property
    def is_open(self) -> bool:
        """Whether nothing waits any more."""
        return not self._all

    async def chunk(self) -> None:
        """Wait for what takes a chunk through the model and draws the token after it.

        Raises ShaderCompilationError, DeviceLostError; so does the next call.
        """
        if self._for_chunk:
            await self._device.wait_compiled(self._for_chunk)
            self._for_chunk = []

    async def decode(self) -> None:
        """Wait for all kernels. Raises what `chunk` does."""
        if self._all:
            await self._device.wait_compiled(self._all)
            self._all = self._for_chunk = []


class KernelProgress:
    """Reports how many of `total` kernels are compiled, for as long as its block lasts.

    So the last report may tell of fewer.
    """

    def __init__(self, total: int, on_progress: Callable[[LoadProgress], None]) -> None:
        self._total = total
        self._on_progress = on_progress
        self._done: list[int] = []
        self._is_over = False

    def part(self) -> Callable[[int, int], None]:
        """Return what `Device.begin_compile` is to call for some of the kernels."""
        place = len(self._done)
        self._done.append(0)

        def on_compiled(n_done: int, _n_all: int) -> None:
            self._done[place] = n_done
            if not self._is_over:
                done = min(sum(self._done), self._total)
                self._on_progress(LoadProgress("kernels", done, self._total))

        return on_compiled

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._is_over = True
