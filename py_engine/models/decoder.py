"""One decoder-only transformer over a `DecoderSpec`: its kernels, buffers and recorded programs.

Five dispatches a layer in decode (QKV with the norm folded in, attention, output projection onto
the residual, gate-up with norm and activation, down projection onto the residual), eight in
prefill. Around them the embedding and the head, and the draw of the next token
(`models/sampler.py`), which stays on the GPU as the next step's input.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from py_engine.errors import ContextWindowSizeExceededError
from py_engine.gpu.types import Buffer, Device, Dispatch, Kernel, KernelSpec
from py_engine.kernels.attention import attention_decode, attention_prefill, rope_append
from py_engine.kernels.attention_shape import rope_table
from py_engine.kernels.matmul import Epilogue, gemm, gemv
from py_engine.kernels.norm import Norm
from py_engine.kernels.rows import embed, last_row, row_norm
from py_engine.models.base import Draw, SamplingParams
from py_engine.models.sampler import Sampler, sampler_kernels, sampler_sizes
from py_engine.models.spec import DecoderSpec, LayerNames
from py_engine.weights.plan import matrix_tensors


def decoder_kernels(spec: DecoderSpec, lanes: int | None) -> dict[str, KernelSpec]:
    """Return the decoder's kernels by role, for subgroups of at most `lanes` (None: without)."""
    form, hidden, inner = spec.weight_format, spec.hidden_size, spec.intermediate_size
    heads = spec.attention
    width = spec.n_heads * spec.head_dim
    vocab, active = spec.vocab_size, spec.active_vocab_size
    norm, chunk = Norm("rms", spec.rms_norm_eps), spec.prefill_chunk_size
    projected, residual = Epilogue(bias=spec.qkv_bias), Epilogue(residual=True)
    swiglu = Epilogue(activation="silu", gated=True)
    kernels = [
        embed("embed", form, vocab, hidden, ids="drawn"),
        gemv("qkv", form, spec.qkv_size, hidden, epilogue=projected, norm=norm, lanes=lanes),
        attention_decode("attention", heads),
        gemv("output", form, hidden, width, epilogue=residual, lanes=lanes),
        gemv("gate_up", form, 2 * inner, hidden, epilogue=swiglu, norm=norm, lanes=lanes),
        gemv("down", form, hidden, inner, epilogue=residual, lanes=lanes),
        gemv("lm_head", form, active, hidden, norm=norm, lanes=lanes),
        embed("prefill embed", form, vocab, hidden, max_tokens=chunk),
        row_norm("prefill norm", hidden, chunk, norm, lanes=lanes),
        gemm("prefill qkv", form, spec.qkv_size, hidden, chunk, epilogue=projected, lanes=lanes),
        rope_append("prefill rope", heads, chunk),
        attention_prefill("prefill attention", heads, chunk),
        gemm("prefill output", form, hidden, width, chunk, epilogue=residual, lanes=lanes),
        gemm("prefill gate_up", form, 2 * inner, hidden, chunk, epilogue=swiglu, lanes=lanes),
        gemm("prefill down", form, hidden, inner, chunk, epilogue=residual, lanes=lanes),
        last_row("prefill last row", hidden, chunk),
    ]
    return {**{kernel.label: kernel for kernel in kernels}, **sampler_kernels(active)}


def activation_sizes(spec: DecoderSpec) -> dict[str, int]:
    """Return the bytes of every buffer that is neither a weight nor a KV cache, by name."""
    rows = {
        "x": spec.hidden_size,
        "qkv": spec.qkv_size,
        "attended": spec.n_heads * spec.head_dim,
        "activated": spec.intermediate_size,
    }
    chunk = {**rows, "normed": spec.hidden_size, "tokens": 1}
    return {
        **{name: 4 * size for name, size in rows.items()},
        **{f"prefill {name}": 4 * size * spec.prefill_chunk_size for name, size in chunk.items()},
        **sampler_sizes(spec.active_vocab_size),
    }


class Decoder:
    """A loaded model with one sequence; the `TextModel` of `models/base.py`.

    Owns `buffers`: weights by tensor name, and everything else it has on the GPU.
    """

    def __init__(
        self,
        device: Device,
        spec: DecoderSpec,
        kernels: Mapping[str, Kernel],
        buffers: dict[str, Buffer],
    ) -> None:
        self.spec = spec
        self.vocab_size = spec.active_vocab_size
        self.context_window_size = spec.context_window_size
        self.prefill_chunk_size = spec.prefill_chunk_size
        self._device = device
        self._position = 0  # tokens of the sequence once everything enqueued has run
        self._n_written = 0  # the most there were since its first one
        self._chunk_is_queued = False
        self._buffers = buffers
        recorder = _Recorder(spec, kernels, buffers)
        self._next = device.program(recorder.next_logits(), "next logits")
        self._prefill = device.program(recorder.prefill(), "prefill")
        self._first = device.program(recorder.first_logits(), "first logits")
        self._sampler = Sampler(device, self.vocab_size, kernels, buffers)

    def reusable_tokens(self, n_tokens: int) -> int:
        """Return how many of the sequence's first `n_tokens` tokens a `start` can keep."""
        kept, window = min(n_tokens, self._position), self.spec.window
        return kept if window is None else window.reusable_tokens(kept, self._n_written)

    def start(self, sampling: SamplingParams, kept_tokens: int = 0) -> None:
        """Forget the sequence but for its first `kept_tokens`, and set how tokens are drawn.

        `kept_tokens` is at most what `reusable_tokens` allows.
        """
        assert kept_tokens == self.reusable_tokens(kept_tokens)
        self._position = kept_tokens
        self._n_written = self._n_written if kept_tokens else 0
        self._chunk_is_queued = False
        self._device.write_buffer(self._buffers["state"], 0, array("I", [kept_tokens, 0, 0, 0]))
        self._sampler.start(sampling)

    async def prefill(self, token_ids: Sequence[int]) -> None:
        """Append one chunk of 1 to `prefill_chunk_size` tokens to the sequence.

        Waits for the chunk before it, so that the GPU never has more than one queued and a caller
        can stop between two. Raises ContextWindowSizeExceededError.
        """
        n_tokens = len(token_ids)
        self._require_room(n_tokens)
        if self._chunk_is_queued:
            await self._device.synchronize()
        buffers = self._buffers
        self._device.write_buffer(buffers["prefill tokens"], 0, array("I", token_ids))
        self._device.write_buffer(buffers["state"], 0, array("I", [self._position, n_tokens]))
        self._prefill.set_n_tokens(n_tokens)
        self._prefill.submit()
        self._chunk_is_queued = True
        self._advance(n_tokens)

    def sample(self) -> Awaitable[Draw]:
        """Draw the first token after the last prefill chunk."""
        return self._sampler.draw(self._first)

    def decode(self) -> Awaitable[Draw]:
        """Enqueue one step, which appends the last drawn token and draws the next one.

        Raises ContextWindowSizeExceededError when the KV cache is full.
        """
        self._append_drawn_token()
        return self._sampler.draw(self._next)

    def first_logits(self) -> None:
        """Compute the logits after the last prefill chunk; returns at once."""
        self._first.submit()

    def next_logits(self) -> None:
        """Append the last drawn token and compute the logits after it; returns at once.

        Raises ContextWindowSizeExceededError when the KV cache is full.
        """
        self._append_drawn_token()
        self._next.submit()

    def draw(self, mask: Any = None) -> Awaitable[Draw]:
        """Draw from the logits at hand; `mask` as in `TextModel.draw`."""
        return self._sampler.draw(mask=mask)

    def _append_drawn_token(self) -> None:
        self._require_room(1)
        self._advance(1)

    def _advance(self, n_tokens: int) -> None:
        self._position += n_tokens
        self._n_written = max(self._n_written, self._position)

    def _require_room(self, n_tokens: int) -> None:
        if self._position + n_tokens > self.context_window_size:
            raise ContextWindowSizeExceededError(
                f"{self._position} tokens are in the KV cache and {n_tokens} more do not fit into"
                f" context_window_size {self.context_window_size}. Shorten the messages, or load"
                " the model with a larger context_window_size."
            )

    async def read_logits(self) -> array[float]:
        """Return the f32 logits at hand, (vocab_size,): unadjusted before their draw."""
        logits = array("f")
        logits.frombytes(
            await self._device.read_buffer(self._buffers["logits"], 0, 4 * self.vocab_size)
        )
        return logits

    def write_logits(self, logits: Any) -> None:
        """Replace the logits at hand, f32 (vocab_size,), before their draw."""
        self._device.write_buffer(self._buffers["logits"], 0, logits, 0, 4 * self.vocab_size)

    def destroy(self) -> None:
        """Free everything the model holds on the GPU."""
        for buffer in self._buffers.values():
            buffer.destroy()
        self._buffers.clear()


class _Recorder:
    """Lays out the dispatches of a decoder's programs over its buffers."""

    def __init__(
        self, spec: DecoderSpec, kernels: Mapping[str, Kernel], buffers: Mapping[str, Buffer]
    ) -> None:
        self._spec = spec
        self._kernels = kernels
        self._buffers = buffers

    def _matrix(self, name: str) -> list[Buffer]:
        return [self._buffers[n] for n in matrix_tensors(name, self._spec.weight_format)]

    def _norm(self, name: str) -> Buffer:
        return self._buffers[f"{name}.weight"]

    def _qkv_bias(self, layer: LayerNames) -> list[Buffer]:
        return [self._buffers[f"{layer.qkv}.bias"]] if self._spec.qkv_bias else []

    def _head_norms(self, layer: LayerNames) -> list[Buffer]:
        return [self._norm(name) for name in layer.head_norms]

    def _dispatch(self, role: str, *buffers: Buffer | str) -> Dispatch:
        found = (self._buffers[b] if isinstance(b, str) else b for b in buffers)
        return Dispatch(self._kernels[role], tuple(found))

    def next_logits(self) -> list[Dispatch]:
        """Take the last drawn token through embedding, layers and head."""
        dispatch, spec = self._dispatch, self._spec
        steps = [dispatch("embed", *self._matrix(spec.embedding), "state", "x")]
        for i, layer in enumerate(spec.layers):
            qkv, output = self._matrix(layer.qkv), self._matrix(layer.output)
            gate_up, down = self._matrix(layer.gate_up), self._matrix(layer.down)
            bias, head_norms = self._qkv_bias(layer), self._head_norms(layer)
            k, v = f"k_cache {i}", f"v_cache {i}"
            steps += [
                dispatch("qkv", *qkv, "x", self._norm(layer.input_norm), *bias, "qkv"),
                dispatch("attention", "qkv", *head_norms, "rope", "state", k, v, "attended"),
                dispatch("output", *output, "attended", "x"),
                dispatch(
                    "gate_up", *gate_up, "x", self._norm(layer.post_attention_norm), "activated"
                ),
                dispatch("down", *down, "activated", "x"),
            ]
        return [*steps, self._head()]

    def _head(self) -> Dispatch:
        spec = self._spec
        head = self._matrix(spec.lm_head or spec.embedding)
        return self._dispatch("lm_head", *head, "x", self._norm(spec.final_norm), "logits")

    def prefill(self) -> list[Dispatch]:
        """Run the layers over a chunk, leaving its last layer's rows in "prefill x"."""
        spec = self._spec

        def dispatch(role: str, *buffers: Buffer | str) -> Dispatch:
            return self._dispatch(f"prefill {role}", *buffers)

        x, normed, qkv = "prefill x", "prefill normed", "prefill qkv"
        attended, activated = "prefill attended", "prefill activated"
        steps = [dispatch("embed", *self._matrix(spec.embedding), "prefill tokens", x)]
        for i, layer in enumerate(spec.layers):
            k, v = f"k_cache {i}", f"v_cache {i}"
            bias, head_norms = self._qkv_bias(layer), self._head_norms(layer)
            steps += [
                dispatch("norm", x, self._norm(layer.input_norm), "state", normed),
                dispatch("qkv", *self._matrix(layer.qkv), normed, "state", *bias, qkv),
                dispatch("rope", qkv, *head_norms, "rope", "state", k, v),
                dispatch("attention", qkv, *head_norms, "rope", "state", k, v, attended),
                dispatch("output", *self._matrix(layer.output), attended, "state", x),
                dispatch("norm", x, self._norm(layer.post_attention_norm), "state", normed),
                dispatch("gate_up", *self._matrix(layer.gate_up), normed, "state", activated),
                dispatch("down", *self._matrix(layer.down), activated, "state", x),
            ]
        return steps

    def first_logits(self) -> list[Dispatch]:
        """Take the chunk's last row through the head."""
        return [self._dispatch("prefill last row", "prefill x", "state", "x"), self._head()]


def _allocate(device: Device, spec: DecoderSpec, buffers: dict[str, Buffer]) -> None:
    """Add activations, KV caches and the RoPE table to `buffers`."""
    for name, nbytes in activation_sizes(spec).items():
        buffers[name] = device.create_buffer(nbytes, name)
    for layer in range(spec.n_layers):
        for name in (f"k_cache {layer}", f"v_cache {layer}"):
            buffers[name] = device.create_buffer(spec.attention.cache_bytes, name)
    table = rope_table(spec.rope_inv_freq, spec.context_window_size)
    buffers["rope"] = device.create_buffer(4 * len(table), "rope")
    device.write_buffer(buffers["rope"], 0, table)


async def build_decoder(
    device: Device,
    spec: DecoderSpec,
    kernels: Mapping[str, Kernel],
    weights: Mapping[str, Buffer],
) -> Decoder:
    """Allocate a decoder's buffers and record its programs. The decoder owns `weights` from now on.

    Raises OutOfMemoryError, LimitSupportError, ValidationError or DeviceLostError, after freeing
    everything, `weights` included.
    """
    buffers = dict(weights)
    try:
        async with device.check("making the model's buffers and programs"):
            _allocate(device, spec, buffers)
            return Decoder(device, spec, kernels, buffers)
    except BaseException:
        for buffer in buffers.values():
            buffer.destroy()
        raise
