"""The pieces that only decoders have: attention with a KV cache, norms before products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.attention import attention_decode, attention_prefill, rope_append
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.kernels.attention_split import (
    attention_alone,
    attention_combine,
    attention_split,
    key_split,
    most_keys,
)
from py_engine.kernels.batch import Batch
from py_engine.kernels.delta import gated_delta
from py_engine.kernels.gemv_input import AttentionParts
from py_engine.kernels.product import Epilogue
from py_engine.kernels.rows import last_row
from py_engine.kernels.tuning import Tuning
from py_engine.kernels.vision import image_rows
from py_engine.models.cache_pool import LayerCache
from py_engine.models.delta_states import state_names
from py_engine.models.ops import Ops, Step
from py_engine.models.spec import DecoderSpec
from py_engine.weights.layouts import Layouts

LayerCaches = Mapping[int, tuple[LayerCache, ...]]
"""The parts of the KV cache of each layer that has one, by the layer's number."""

ROWS = frozenset(
    ("x", "normed", "qkv", "attended", "projected", "recalled", "activated", "branch", "mlp_branch")
)
"""Activations that decode has one row of, and prefill, with names of its own, one a token."""

PREFILL = "prefill "
"""What prefill's names of activations and labels of kernels begin with."""


def layer_caches(spec: DecoderSpec, most_bytes: int) -> LayerCaches:
    """Return the KV caches by layer, in several parts where one buffer would be too large."""
    return {
        index: tuple(
            LayerCache(f"k_cache {index}.{part}", f"v_cache {index}.{part}", shape)
            for part, shape in enumerate(spec.attention(layer).parts(most_bytes))
        )
        for index, layer in spec.attention_layers.items()
    }


def row_widths(spec: DecoderSpec) -> dict[str, int]:
    """Return the elements of a row of each of the activations that the spec's layers have."""
    delta = {}
    if spec.delta is not None:
        delta = {"projected": sum(spec.delta.row_blocks), "recalled": spec.delta.output_size}
    return {
        "x": spec.hidden_size,
        "normed": spec.hidden_size,
        "branch": spec.hidden_size,
        "mlp_branch": spec.hidden_size,
        "qkv": sum(spec.heads.qkv_blocks),
        "attended": spec.heads.width,
        "activated": spec.mlp.intermediate_size,
        **delta,
    }


class DecoderOps(Ops):
    """Pieces of a decoder, for one token (`chunk` None) or for a chunk of at most so many.

    With a `batch` the pieces of one token are of several: see `models/batch.py`.
    """

    def __init__(
        self,
        spec: DecoderSpec,
        layouts: Layouts,
        caches: LayerCaches,
        tuning: Tuning,
        chunk: int | None,
        *,
        batch: Batch | None = None,
    ) -> None:
        super().__init__(
            layouts,
            spec.norm,
            row_widths(spec),
            tuning=tuning,
            batch=1 if batch is None else batch.size,
            max_tokens=chunk,
            prefix="" if chunk is None else PREFILL,
            rows=ROWS,
        )
        self._layers = spec.layers
        self._delta = spec.delta
        self._caches = caches
        self._token_batch = batch
        self._normed = ""  # the norm whose result lies in "normed"
        # What "attended" is yet to be joined from.
        self._attention_parts: AttentionParts | None = None
        self._most_tokens: int | None = None

    def of_sequences(self, most_tokens: int) -> DecoderOps:
        """Return the same pieces, for sequences of at most so many tokens."""
        pieces = copy(self)
        pieces._most_tokens = most_tokens
        return pieces

    def most_joined_keys(self) -> int:
        """Return up to how many keys output projections join, 0 where none does."""
        joined = (math.prod(self._joinable(index)) for index in self._caches)
        return min(filter(None, joined), default=0)

    def project(
        self,
        role: str,
        source: str,
        target: str,
        epilogue: Epilogue,
        norm: str = "",
        branch_norm: str = "",
    ) -> Iterator[Step]:
        """Multiply by a matrix after a norm, if any: folded in, or as rows of their own.

        What "branch" adds to the source through `branch_norm` can only be folded in.
        """
        if not norm or self.max_tokens is None:
            attention_parts = self._attention_parts if source == "attended" else None
            yield from self.product(
                role,
                source,
                target,
                epilogue,
                norm=norm,
                branch_norm=branch_norm,
                attention_parts=attention_parts,
            )
            return
        if norm != self._normed:
            yield self.norm(norm, "norm", source, "normed", "copy")
            self._normed = norm
        yield from self.product(role, "normed", target, epilogue)

    def delta(self, index: int) -> Iterator[Step]:
        """Run the gated delta rule of layer `index`: "projected" to "recalled"."""
        layer = f"layers.{index}.delta."
        history, memory = state_names(index)
        buffers = {
            "projected": "projected",
            **{name: layer + name for name in ("conv", "gates", "norm")},
            "history": history,
            "memory": memory,
            "output": "recalled",
        }
        tokens = self.max_tokens or 1
        kernel = self.kernel(gated_delta, "delta", shape=self._delta, max_tokens=tokens)
        yield self.step(kernel, buffers)

    def attention(self, index: int) -> Iterator[Step]:
        """Attend in layer `index`: "qkv" to "attended", or to parts that its projection joins."""
        self._attention_parts = self._parts_to_join(index)
        buffers = {
            "qkv": "qkv",
            "q_norm": f"layers.{index}.q_norm",
            "k_norm": f"layers.{index}.k_norm",
            "rope": f"rope {self._layers[index].rope}",
            "split_parts": "split_parts",
            "output": "attended",
        }
        for cache in self._caches[index]:
            for kernel in self._attention_kernels(cache.shape):
                own = {"k_cache": cache.k, "v_cache": cache.v, "rows": cache.rows}
                yield self.step(kernel, buffers | own)

    def _has_at_most(self, n_tokens: int) -> bool:
        return self._most_tokens is not None and self._most_tokens <= n_tokens

    def _parts_to_join(self, index: int) -> AttentionParts | None:
        """Return what the output projection of layer `index` joins, None where it reads heads."""
        shape = self._caches[index][0].shape
        most = min(most_keys(shape), self._most_tokens or shape.context)
        alone, n_parts = self._joinable(index)
        if not alone < most <= n_parts * alone:
            return None
        return AttentionParts(shape.head_dim, -(-most // alone))

    def _joinable(self, index: int) -> tuple[int, int]:
        """Return the keys of a part, and how many parts the output projection may join."""
        caches = self._caches[index]
        shape = caches[0].shape
        split = key_split(shape, self._tuning)
        if split is None or split.splits == 1 or len(caches) > 1 or shape.gated:
            return 0, 0
        n_parts = self.joinable_parts(f"layers.{index}.output", "attended", shape.head_dim)
        return split.alone_keys, min(split.splits, n_parts)

    def _attention_kernels(self, shape: AttentionShape) -> Iterator[KernelSpec]:
        chunk, tuning, batch = self.max_tokens, self._tuning, self._token_batch
        if chunk is None:
            of_rows: dict[str, Any] = {"shape": shape, "batch": batch}
            split = key_split(shape, tuning)
            if batch is not None and batch.is_draft:
                workgroup = tuning.attention_threads if split is None else split.workgroup
                yield self.kernel(
                    rope_append, "rope", max_tokens=batch.size, workgroup=workgroup, **of_rows
                )
            if split is None:
                threads = tuning.attention_threads
                yield self.kernel(attention_decode, "attention", workgroup=threads, **of_rows)
            elif self._has_at_most(split.alone_keys) or split.splits == 1:
                yield self.kernel(attention_alone, "attention", split=split, **of_rows)
            elif self._attention_parts is not None:
                yield self.kernel(
                    attention_split,
                    "attention",
                    split=split.in_parts(self._attention_parts.n_parts),
                    **of_rows,
                )
            else:
                yield self.kernel(attention_split, "attention", split=split, **of_rows)
                yield self.kernel(attention_combine, "combine", split=split, **of_rows)
            return
        yield self.kernel(rope_append, "rope", shape=shape, max_tokens=chunk)
        yield self.kernel(
            attention_prefill, "attention", shape=shape, max_tokens=chunk, tuning=tuning
        )

    def image_rows(self, n_rows: int) -> Step:
        """Replace the rows of a chunk's tokens that stand for images; `n_rows` are kept."""
        size = self._columns["x"]
        kernel = self.kernel(
            image_rows,
            "image rows",
            hidden_size=size,
            max_tokens=self.max_tokens,
            n_rows=n_rows,
        )
        return self.step(kernel, {"images": "images", "output": "x"})

    def last_row(self) -> Step:
        """Copy the chunk's last row to decode's "x"."""
        size = self._columns["x"]
        kernel = self.kernel(last_row, "last row", hidden_size=size, max_tokens=self.max_tokens)
        return Step(kernel, (f"{PREFILL}x", "state", "x"))
