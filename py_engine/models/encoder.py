"""One encoder-only transformer over an `EncoderSpec`: its buffers and recorded program.

The sequences of a batch lie one after another without padding, so that no padding is computed and a
sequence's vector does not depend on its neighbours. One submit and one read-back for each batch.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain, pairwise

from py_engine.errors import LimitSupportError
from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import Buffer, Device, Dispatch, Limits
from py_engine.kernels.wgsl import STATE_WORDS
from py_engine.models.compiling import KernelGate, Kernels
from py_engine.models.encoder_spec import EncoderSpec
from py_engine.models.memory_plan import MemoryPlan
from py_engine.models.ops import Step
from py_engine.weights.formats import is_plain


def activation_sizes(spec: EncoderSpec) -> dict[str, int]:
    """Return the bytes of every buffer that is not a weight, by name."""
    hidden, room = spec.hidden_size, spec.max_batch_tokens
    words = {
        "tokens": room,
        "positions": room,
        "token_types": room,
        "spans": 2 * room,
        "x": hidden * room,
        "qkv": 3 * hidden * room,
        "attended": hidden * room,
        "activated": spec.intermediate_size * room,
        "sequences": 2 * spec.max_batch_size,
        "pooled": hidden * spec.max_batch_size,
        "state": len(STATE_WORDS),
    }
    return {name: 4 * size for name, size in words.items()}


def encoder_memory(spec: EncoderSpec, weight_bytes: int, quantization: str) -> MemoryPlan:
    """Return what an encoder with so many bytes of weights, in `quantization`, takes."""
    working = sum(activation_sizes(spec).values())
    return MemoryPlan(weight_bytes, working, can_be_quantised=is_plain(quantization))


def require_activations_fit(spec: EncoderSpec, limits: Limits) -> None:
    """Raise LimitSupportError unless every activation fits into one buffer of the GPU."""
    name, nbytes = max(activation_sizes(spec).items(), key=lambda item: item[1])
    most = min(limits.max_storage_buffer_binding_size, limits.max_buffer_size)
    if nbytes > most:
        longest = most * spec.max_batch_tokens // nbytes
        raise LimitSupportError(
            f"context_window_size {spec.context_window_size} needs {nbytes:,} bytes for the buffer "
            f"'{name}', but a buffer of this GPU has at most {most:,}. Set context_window_size to "
            f"at most {longest} in chat_opts, or choose a smaller model."
        )


class Encoder:
    """A loaded model; the `Embedder` of `models/embedder.py`.

    Owns `buffers`: weights and activations, by the names that its steps have for them.
    """

    def __init__(
        self,
        device: Device,
        spec: EncoderSpec,
        steps: Sequence[Step],
        kernels: Kernels,
        buffers: dict[str, Buffer],
    ) -> None:
        self.spec = spec
        self.vocab_size = spec.vocab_size
        self.hidden_size = spec.hidden_size
        self.context_window_size = spec.context_window_size
        self.max_batch_size = spec.max_batch_size
        self.max_batch_tokens = spec.max_batch_tokens
        self._device = device
        self._buffers = buffers
        dispatches = [
            Dispatch(kernels[step.kernel], tuple(buffers[name] for name in step.buffers))
            for step in steps
        ]
        self._program = device.program(dispatches, "encode")
        self._gate = KernelGate(device, kernels)

    async def embed(self, batch: Sequence[Sequence[int]]) -> list[array[float]]:
        """Return one vector, f32 (hidden_size,), for each sequence of token ids (none is empty)."""
        await self._gate.chunk()
        sequences = list(pairwise(accumulate(map(len, batch), initial=0)))
        n_tokens = sequences[-1][1]
        absent = [(0, 0)] * (self.max_batch_size - len(batch))
        state = array("I", [0] * len(STATE_WORDS))
        state[STATE_WORDS["STATE_N_TOKENS"]] = n_tokens
        self._write("tokens", chain.from_iterable(batch))
        self._write("positions", chain.from_iterable(range(len(ids)) for ids in batch))
        self._write("spans", chain.from_iterable(s * (s[1] - s[0]) for s in sequences))
        self._write("sequences", chain.from_iterable([*sequences, *absent]))
        self._write("state", state)
        self._program.set_n_tokens(n_tokens)
        row = 4 * self.hidden_size
        # Always all rows: the device keeps a staging buffer for each size that was ever read.
        pooled = await self._program.submit_and_read_bytes(
            self._buffers["pooled"], 0, row * self.max_batch_size
        )
        return [array("f", pooled[row * i : row * (i + 1)]) for i in range(len(batch))]

    def _write(self, name: str, words: Iterable[int]) -> None:
        self._device.write_buffer(self._buffers[name], 0, array("I", words))

    def destroy(self) -> None:
        """Free everything the model holds on the GPU."""
        destroy_buffers(self._buffers.values())
        self._buffers.clear()


async def build_encoder(
    device: Device,
    spec: EncoderSpec,
    steps: Sequence[Step],
    kernels: Kernels,
    weights: Mapping[str, Buffer],
) -> Encoder:
    """Allocate an encoder's buffers and record its program. It owns `weights` from now on.

    Raises OutOfMemoryError, LimitSupportError, ValidationError or DeviceLostError, after freeing
    everything, `weights` included.
    """
    buffers = dict(weights)
    try:
        async with device.check("making the model's buffers and programs"):
            for name, nbytes in activation_sizes(spec).items():
                buffers[name] = device.create_buffer(nbytes, name)
            return Encoder(device, spec, steps, kernels, buffers)
    except BaseException:
        destroy_buffers(buffers.values())
        raise
