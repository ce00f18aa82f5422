"""From a spec to a decoder's programs: which kernel runs over which buffers, step by step.

Everything is decided before a weight is fetched: the kernels that the steps name are the ones to
compile. In decode a layer takes five dispatches (QKV with the norm folded in, attention, output
projection onto the residual, gate-up with norm and activation, down projection onto the residual),
with linear attention too (its input projection, the delta rule, its output projection). Norms of
the outputs of both branches take one more where products share x among many rows: the gate-up
projection adds what attention's branch does to x where it reads x, and one dispatch behind the MLP
adds what both do to the residual; elsewhere they take two. Where attention shares keys out, it
takes a second one to join them, but not in sequences of few tokens, which have steps of their own:
of one part, or of parts that the output projection joins.
Prefill takes one more for each norm, and two for attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from py_engine.chat_config import ActivationDtype
from py_engine.gpu.types import KernelSpec
from py_engine.kernels.attention_split import key_split, split_bytes
from py_engine.kernels.batch import Batch
from py_engine.kernels.history import recall, remember
from py_engine.kernels.product import Epilogue
from py_engine.kernels.rows import Ids, Target
from py_engine.kernels.tuning import Tuning
from py_engine.models.cache_pool import LayerCache
from py_engine.models.decoder_ops import DecoderOps, layer_caches
from py_engine.models.ops import Step
from py_engine.models.spec import DecoderSpec
from py_engine.weights.layouts import Layouts


@dataclass(frozen=True)
class NextLogits:
    """What takes the token drawn last through embedding, layers and head.

    `of_any` is for every sequence. Where attention shares keys out, sequences of few tokens have
    steps of their own, `of_few`: each kind with the most tokens that such a sequence has, with the
    one that it appends, fewest first. Where attention is in one part, bits are those of `of_any`.
    """

    of_any: tuple[Step, ...]
    of_few: tuple[tuple[int, tuple[Step, ...]], ...] = ()

    def of(self, n_tokens: int) -> tuple[Step, ...]:
        """Return what is for a sequence that has so many tokens with the one that it appends."""
        return next((steps for most, steps in self.of_few if n_tokens <= most), self.of_any)

    @property
    def every(self) -> tuple[tuple[Step, ...], ...]:
        """The steps of each kind of sequence."""
        return (self.of_any, *(steps for _, steps in self.of_few))

    def __iter__(self) -> Iterator[Step]:
        """Return all steps."""
        return chain.from_iterable(self.every)


@dataclass(frozen=True)
class DecoderSteps:
    """A decoder's programs.

    `next_logits` are decode's. `prefill` runs the layers over a chunk, `first_logits` takes its
    last row through the head. `recall` puts tokens that the sequence already has where a chunk's
    tokens lie; it is empty where nothing is ever computed again. `caches` are the KV caches of all
    layers, and `split_bytes` what attention that shares keys out needs for its parts. Kernels are
    in the forms of `tuning`. `batch_logits` returns `next_logits` with layers of a batch, for
    `batched` of `models/batch.py`; it is not among the steps of which `kernels` and `buffers` tell.
    """

    next_logits: NextLogits
    prefill: tuple[Step, ...]
    first_logits: tuple[Step, ...]
    recall: tuple[Step, ...]
    caches: tuple[LayerCache, ...]
    split_bytes: int
    tuning: Tuning
    batch_logits: Callable[[Batch], NextLogits]

    @property
    def programs(self) -> tuple[tuple[str, tuple[Step, ...]], ...]:
        """The steps of each program, with what it is called."""
        return (
            *(("next logits", steps) for steps in self.next_logits.every),
            ("prefill", self.prefill),
            ("first logits", self.first_logits),
            ("recall", self.recall),
        )

    def __iter__(self) -> Iterator[Step]:
        """Return all steps."""
        return chain.from_iterable(steps for _, steps in self.programs)

    @property
    def activation_dtype(self) -> ActivationDtype:
        """What products round their input to at the most."""
        dtypes = {step.kernel.constants.get("activation_dtype") for step in self}
        return next(dtype for dtype in ("int8", "float16", "float32") if dtype in dtypes)

    @property
    def kernels(self) -> list[KernelSpec]:
        """Every kernel once."""
        return list({id(step.kernel): step.kernel for step in self}.values())

    @property
    def kernels_of_layers(self) -> list[KernelSpec]:
        """The kernels of a chunk, which do not depend on how much of the vocabulary is in use."""
        return list(dict.fromkeys(step.kernel for step in self.prefill))

    @property
    def kernels_of_decode(self) -> frozenset[KernelSpec]:
        """The kernels that only `next_logits` have."""
        others = chain(self.prefill, self.first_logits, self.recall)
        return frozenset(self.kernels).difference(step.kernel for step in others)

    @property
    def buffers(self) -> set[str]:
        """The names of all buffers."""
        return {name for step in self for name in step.buffers}


def decoder_steps(
    spec: DecoderSpec, layouts: Layouts, most_cache_bytes: int, tuning: Tuning
) -> DecoderSteps:
    """Return a decoder's programs of kernels in the forms of `tuning`.

    `most_cache_bytes` is what one buffer of the KV cache can have.
    """
    caches = layer_caches(spec, most_cache_bytes)
    decode = DecoderOps(spec, layouts, caches, tuning, None)
    prefill = DecoderOps(spec, layouts, caches, tuning, spec.prefill_chunk_size)
    head = tuple(_head(spec, decode))
    every_cache = tuple(chain.from_iterable(caches.values()))
    splits = ((cache.shape, key_split(cache.shape, tuning)) for cache in every_cache)

    def batch_logits(batch: Batch) -> NextLogits:
        ops = DecoderOps(spec, layouts, caches, tuning, None, batch=batch)
        return _next_logits(spec, ops, tuple(_head(spec, ops)), tuning)

    return DecoderSteps(
        next_logits=_next_logits(spec, decode, head, tuning),
        prefill=tuple(_layers(spec, prefill, "tokens", "prefill tokens")),
        first_logits=(prefill.last_row(), *head),
        recall=(_recall(spec, prefill),) if spec.long_rope else (),
        caches=every_cache,
        split_bytes=max((split_bytes(s, split) for s, split in splits if split), default=0),
        tuning=tuning,
        batch_logits=batch_logits,
    )


def _next_logits(
    spec: DecoderSpec, ops: DecoderOps, head: tuple[Step, ...], tuning: Tuning
) -> NextLogits:
    of_any = (*_next(spec, ops), *head)
    keys = tuning.split_keys
    if keys is None:
        return NextLogits(of_any)
    few = sorted({keys.alone_keys, ops.most_joined_keys() or keys.alone_keys})
    kinds = ((most, (*_next(spec, ops.of_sequences(most)), *head)) for most in few)
    return NextLogits(of_any, tuple(kind for kind in kinds if kind[1] != of_any))


def _next(spec: DecoderSpec, ops: DecoderOps) -> Iterator[Step]:
    """Take the token that was drawn last through the layers."""
    if spec.long_rope:
        yield _remember(spec, ops)
    yield from _layers(spec, ops, "drawn", "state")


def _layers(spec: DecoderSpec, ops: DecoderOps, ids: Ids, tokens: str) -> Iterator[Step]:
    """Take tokens through embedding and layers; the buffer `tokens` has their ids."""
    scale = spec.embedding_scale
    yield from ops.embedding("embedding", ids, tokens, label="embed", scale=scale)
    if spec.n_positions:
        yield from ops.embedding("positions", "positions", "state", add=True)
    if spec.image_tokens and ops.max_tokens is not None:
        yield ops.image_rows(spec.image_slots * spec.image_tokens)
    for index in range(spec.n_layers):
        block = _Block(spec, ops, index)
        yield from block.parallel() if spec.block.parallel else block.sequence()


class _Block:
    """The pieces of layer number `index`."""

    def __init__(self, spec: DecoderSpec, ops: DecoderOps, index: int) -> None:
        self._spec = spec
        self._ops = ops
        self._index = index
        self._layer = f"layers.{index}."
        self._is_delta = spec.layers[index].kind == "delta"
        # The norm behind attention's branch, if what is behind it folds it in.
        self._folded = f"{self._layer}post_attention_norm" if self._folds_branch() else ""

    def _folds_branch(self) -> bool:
        block = self._spec.block
        has_both = block.post_attention_norm and block.post_mlp_norm and not block.parallel
        return has_both and self._ops.folds_branch(self._layer + self._spec.mlp.role, "x")

    def sequence(self) -> Iterator[Step]:
        yield from self._input()
        yield from self._mix()
        yield from self._output()
        yield from self._mlp_input("mlp_norm")
        yield from self._down()

    def parallel(self) -> Iterator[Step]:
        # The MLP reads the residual before attention adds to it.
        yield from self._input()
        yield from self._mlp_input("mlp_norm" if self._spec.block.mlp_norm else "input_norm")
        yield from self._mix()
        yield from self._output()
        yield from self._down()

    def _input(self) -> Iterator[Step]:
        if self._is_delta:
            return self._project("delta.input", "x", "projected", Epilogue(), "input_norm")
        return self._project(
            "qkv", "x", "qkv", Epilogue(bias=self._spec.heads.qkv_bias), "input_norm"
        )

    def _mix(self) -> Iterator[Step]:
        """Let tokens see those before them."""
        delta, attention = self._ops.delta, self._ops.attention
        return delta(self._index) if self._is_delta else attention(self._index)

    def _mlp_input(self, norm: str) -> Iterator[Step]:
        mlp = self._spec.mlp
        epilogue = Epilogue(bias=mlp.bias, activation=mlp.activation, gated=mlp.gated)
        return self._project(mlp.role, "x", "activated", epilogue, norm, self._folded)

    def _output(self) -> Iterator[Step]:
        if self._is_delta:
            return self._branch("delta.output", "recalled", "branch", False, "post_attention_norm")
        bias = self._spec.heads.output_bias
        return self._branch("output", "attended", "branch", bias, "post_attention_norm")

    def _down(self) -> Iterator[Step]:
        # Those of a chunk are large, and there the other branch is done with.
        target = "mlp_branch" if self._ops.max_tokens is None else "branch"
        return self._branch("down", "activated", target, self._spec.mlp.bias, "post_mlp_norm")

    def _branch(self, role: str, source: str, target: str, bias: bool, norm: str) -> Iterator[Step]:
        """Project a branch onto the residual, where it has a norm through that and `target`."""
        if norm not in self._spec.block.norms:
            yield from self._project(role, source, "x", Epilogue(bias=bias, residual=True))
            return
        yield from self._project(role, source, target, Epilogue(bias=bias))
        name = self._layer + norm
        if name != self._folded:
            how: Target = "add_both" if self._folded else "add"
            yield self._ops.norm(name, norm, target, "x", how, self._folded)

    def _project(
        self,
        role: str,
        source: str,
        target: str,
        epilogue: Epilogue,
        norm: str = "",
        branch_norm: str = "",
    ) -> Iterator[Step]:
        norm = self._layer + norm if norm in self._spec.block.norms else ""
        return self._ops.project(self._layer + role, source, target, epilogue, norm, branch_norm)


def _head(spec: DecoderSpec, ops: DecoderOps) -> Iterator[Step]:
    epilogue = Epilogue(bias=spec.lm_head_bias, soft_cap=spec.logit_soft_cap)
    active = spec.active_vocab_size
    return ops.product(
        spec.head, "x", "logits", epilogue, norm="final_norm", label="lm_head", n_rows=active
    )


def _remember(spec: DecoderSpec, ops: DecoderOps) -> Step:
    kernel = remember("remember", spec.context_window_size)
    return ops.step(kernel, {"history": "history"})


def _recall(spec: DecoderSpec, ops: DecoderOps) -> Step:
    kernel = recall("recall", spec.context_window_size, spec.prefill_chunk_size)
    return ops.step(kernel, {"history": "history", "tokens": "prefill tokens"})
