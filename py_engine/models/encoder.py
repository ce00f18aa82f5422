"""One encoder-only transformer over an `EncoderSpec`: its kernels, buffers and recorded program.

The sequences of a batch lie one after another without padding, so that no padding is computed and a
sequence's vector does not depend on its neighbours. Seven dispatches a layer: QKV, attention,
output projection onto the residual, norm, up with GELU, down onto the residual, norm. Before them
three embeddings and a norm, after them the pooling; one submit and one read-back for each batch.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain, pairwise

from py_engine.errors import LimitSupportError
from py_engine.gpu.types import Buffer, Device, Dispatch, Kernel, KernelSpec, Limits
from py_engine.kernels.encoder import attention_bidirectional, pool
from py_engine.kernels.matmul import Epilogue, gemm
from py_engine.kernels.norm import Norm
from py_engine.kernels.rows import embed, row_norm
from py_engine.kernels.wgsl import STATE_WORDS
from py_engine.models.encoder_spec import EncoderSpec
from py_engine.weights.plan import matrix_tensors


def encoder_kernels(spec: EncoderSpec, lanes: int | None) -> dict[str, KernelSpec]:
    """Return the encoder's kernels by role, for subgroups of at most `lanes` (None: without)."""
    form, hidden, inner = spec.weight_format, spec.hidden_size, spec.intermediate_size
    room, sequences = spec.max_batch_tokens, spec.max_batch_size
    vocab, positions, types = spec.vocab_size, spec.n_positions, spec.n_token_types
    bias, gelu = Epilogue(bias=True), Epilogue(bias=True, activation="gelu")
    residual = Epilogue(bias=True, residual=True)
    norm = Norm("layer", spec.layer_norm_eps, bias=True)
    mean = spec.pooling == "mean"
    kernels = [
        embed("words", form, vocab, hidden, max_tokens=room),
        embed("positions", form, positions, hidden, max_tokens=room, add=True),
        embed("token types", form, types, hidden, max_tokens=room, add=True),
        row_norm("norm", hidden, room, norm, target="in_place", lanes=lanes),
        gemm("qkv", form, 3 * hidden, hidden, room, epilogue=bias, lanes=lanes),
        attention_bidirectional("attention", spec.n_heads, spec.head_dim, room),
        gemm("attention output", form, hidden, hidden, room, epilogue=residual, lanes=lanes),
        gemm("intermediate", form, inner, hidden, room, epilogue=gelu, lanes=lanes),
        gemm("output", form, hidden, inner, room, epilogue=residual, lanes=lanes),
        pool("pool", hidden, room, sequences, mean=mean, normalize=spec.normalize),
    ]
    return {kernel.label: kernel for kernel in kernels}


def activation_sizes(spec: EncoderSpec) -> dict[str, int]:
    """Return the bytes of every buffer that is not a weight, by name."""
    hidden, room = spec.hidden_size, spec.max_batch_tokens
    words = {
        "tokens": room,
        "positions": room,
        "token types": room,
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

    Owns `buffers`: weights by tensor name, and everything else it has on the GPU.
    """

    def __init__(
        self,
        device: Device,
        spec: EncoderSpec,
        kernels: Mapping[str, Kernel],
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
        self._program = device.program(_dispatches(spec, kernels, buffers), "encode")

    async def embed(self, batch: Sequence[Sequence[int]]) -> list[array[float]]:
        """Return one vector, f32 (hidden_size,), for each sequence of token ids (none is empty)."""
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
        for buffer in self._buffers.values():
            buffer.destroy()
        self._buffers.clear()


def _dispatches(
    spec: EncoderSpec, kernels: Mapping[str, Kernel], buffers: Mapping[str, Buffer]
) -> list[Dispatch]:
    """Lay out an encoder's program over its buffers."""

    def matrix(name: str) -> list[Buffer]:
        return [buffers[tensor] for tensor in matrix_tensors(name, spec.weight_format)]

    def dispatch(role: str, *used: Buffer | str) -> Dispatch:
        found = (buffers[each] if isinstance(each, str) else each for each in used)
        return Dispatch(kernels[role], tuple(found))

    def norm(name: str) -> Dispatch:
        return dispatch("norm", f"{name}.weight", f"{name}.bias", "state", "x")

    def linear(role: str, name: str, x: str, y: str) -> Dispatch:
        return dispatch(role, *matrix(name), x, "state", f"{name}.bias", y)

    steps = [
        dispatch("words", *matrix(spec.word_embeddings), "tokens", "x"),
        dispatch("positions", *matrix(spec.position_embeddings), "positions", "x"),
        # This buffer stays zero: a text is one segment.
        dispatch("token types", *matrix(spec.token_type_embeddings), "token types", "x"),
        norm(spec.embedding_norm),
    ]
    for layer in spec.layers:
        steps += [
            linear("qkv", layer.qkv, "x", "qkv"),
            dispatch("attention", "qkv", "spans", "state", "attended"),
            linear("attention output", layer.attention_output, "attended", "x"),
            norm(layer.attention_norm),
            linear("intermediate", layer.intermediate, "x", "activated"),
            linear("output", layer.output, "activated", "x"),
            norm(layer.output_norm),
        ]
    return [*steps, dispatch("pool", "x", "sequences", "pooled")]


async def build_encoder(
    device: Device,
    spec: EncoderSpec,
    kernels: Mapping[str, Kernel],
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
            return Encoder(device, spec, kernels, buffers)
    except BaseException:
        for buffer in buffers.values():
            buffer.destroy()
        raise
