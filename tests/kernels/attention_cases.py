"""Inputs of the attention kernels' tests, and the rule they follow written down without a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.attention import attention_decode, attention_prefill, rope_append
from py_engine.kernels.attention_shape import AttentionShape, rope_table
from py_engine.kernels.attention_split import (
    attention_alone,
    attention_combine,
    attention_split,
    key_split,
    split_bytes,
)
from py_engine.kernels.tuning import PLAIN, Tuning
from tests.kernels.cases import POISON, RunKernel, padded, poisoned

Array = np.ndarray
THETA = 10000.0
SPLIT_KERNELS = (attention_split, attention_combine)
_NORMS = ("q_norm", "k_norm")


def inv_freq_of(rotary_dim: int) -> list[float]:
    return [THETA ** (-2 * i / rotary_dim) for i in range(rotary_dim // 2)]


def table_of(shape: AttentionShape, factor: float = 1.0) -> Array:
    return np.array(rope_table(inv_freq_of(shape.rotated), shape.context, factor), np.float32)


def norm_weights(rng: np.random.Generator, shape: AttentionShape, heads: int) -> Array:
    shared = shape.qk_norm is not None and shape.qk_norm.heads_share_weights
    return rng.normal(1, 0.5, (1 if shared else heads) * shape.head_dim).astype(np.float32)


def seen_slots(shape: AttentionShape, position: int, n_tokens: int) -> list[int]:
    """Return the slots of what the queries of a chunk may see."""
    window = shape.window
    if window is None:
        return list(range(position + n_tokens))
    first = max(0, position + 1 - (window.size - window.sinks))
    return [
        p if p < window.sinks else window.sinks + (p - window.sinks) % window.ring
        for p in range(position + n_tokens)
        if p < window.sinks or p >= first
    ]


def inputs_for(
    spec: KernelSpec,
    shape: AttentionShape,
    position: int,
    n_tokens: int,
    *,
    max_tokens: int = 0,
    slots: int = 0,
    factor: float = 1.0,
) -> dict[str, Array]:
    """Return random buffers; in the cache only what the chunk's queries may see, else NaN.

    The cache has room for `slots` tokens (0: as many as it ever may need), `qkv` and `output` for
    `max_tokens` (0: the chunk's).
    """
    rng = np.random.default_rng(position + shape.head_dim)
    rows = max_tokens or max(1, n_tokens)
    n_slots = slots or shape.slots
    unseen = np.setdiff1d(np.arange(n_slots), seen_slots(shape, position, n_tokens))
    room = (2, n_slots, shape.heads_in_cache)
    if shape.cache_dtype == "float16":
        cache = rng.normal(size=(*room, shape.head_dim)).astype(np.float16)
        cache[np.abs(cache) < 2.0**-14] = 0  # WGSL lets adapters read these as 0
        cache[:, unseen] = np.nan
    else:
        cache = rng.integers(-127, 128, (*room, shape.head_dim + 4)).astype(np.int8)
        scales = rng.uniform(1, 3, (*room, 1)).astype(np.float32)
        scales[:, unseen] = np.nan
        cache[..., shape.head_dim :] = scales.view(np.int8)
    qkv = rng.normal(0.1, 2, (rows, shape.qkv_heads, shape.head_dim)).astype(np.float32)
    qkv[max(1, n_tokens) :].view(np.uint32)[:] = POISON
    everything = {
        "qkv": qkv,
        "q_norm": norm_weights(rng, shape, shape.n_heads),
        "k_norm": norm_weights(rng, shape, shape.n_kv_heads),
        "rope": table_of(shape, factor),
        "state": np.array([position, n_tokens, 0, 0], np.uint32),
        "k_cache": cache[0],
        "v_cache": cache[1],
        "output": poisoned(rows * shape.n_heads * shape.head_dim),
    }
    return {binding.name: everything[binding.name] for binding in spec.bindings}


def decode_runner(
    run: RunKernel, shape: AttentionShape, tuning: Tuning, *, is_short: bool = False
) -> RunKernel:
    """Return what runs the form that `tuning` asks for in place of `attention_decode`.

    `is_short`: of two forms that for few keys.
    """
    split = key_split(shape, tuning)
    if split is None:
        return run
    builds = (attention_alone,) if is_short or split.splits == 1 else SPLIT_KERNELS
    kernels = [build("decode under test", shape, split) for build in builds]

    def run_all(spec: KernelSpec, buffers: Mapping[str, bytes], n_tokens: int) -> dict[str, bytes]:
        parts = poisoned(split_bytes(shape, split) // 4)
        held = {**buffers, "split_parts": padded(parts)}
        for kernel in kernels:
            held |= run(kernel, {b.name: held[b.name] for b in kernel.bindings}, n_tokens)
        assert held["split_parts"].endswith(padded(parts)[4 * len(parts) :])
        return {b.name: held[b.name] for b in spec.bindings if b.access == "read_write"}

    return run_all


def assert_same_caches(result: dict[str, tuple[Array, Array]]) -> None:
    for name in ("k_cache", "v_cache"):
        expected, found = (x.view(np.float16).astype(np.float32) for x in result[name])
        np.testing.assert_array_equal(np.isnan(expected), np.isnan(found))
        written = ~np.isnan(expected)
        np.testing.assert_allclose(found[written], expected[written], rtol=2**-10, atol=2**-12)


def assert_same_codes(shape: AttentionShape, result: dict[str, tuple[Array, Array]]) -> None:
    """Assert that caches of codes have the same values but for the last step of some codes."""
    for name in ("k_cache", "v_cache"):
        rows = [x.view(np.int8).reshape(-1, shape.head_dim + 4) for x in result[name]]
        scales = [np.ascontiguousarray(x[:, shape.head_dim :]).view(np.float32) for x in rows]
        np.testing.assert_allclose(scales[1], scales[0], rtol=1e-5)
        steps = np.abs(rows[0][:, : shape.head_dim].astype(int) - rows[1][:, : shape.head_dim])
        assert steps.max() <= 1 and steps.mean() < 0.01


def attend_in_steps(
    run: RunKernel,
    shape: AttentionShape,
    qkv: Array,
    chunks: Sequence[int],
    *,
    offset: int = 0,
    norms: Sequence[Array] = (),
    factor: float = 1.0,
    tuning: Tuning = PLAIN,
) -> Array:
    """Take a sequence through the kernels: chunks of prefill, a chunk of 0 being a decode step."""
    kinds = {
        "decode": attention_decode("decode", shape, tuning.attention_threads),
        "append": rope_append("append", shape, max(1, *chunks)),
        "prefill": attention_prefill("prefill", shape, max(1, *chunks)),
    }
    cache = np.full(shape.cache_bytes // 4, 0, np.uint32)
    held = {
        "rope": padded(table_of(shape, factor)),
        **{name: padded(weights) for name, weights in zip(_NORMS, norms, strict=False)},
        "k_cache": padded(cache),
        "v_cache": padded(cache),
    }

    def dispatch(kind: str, n_tokens: int) -> None:
        spec = kinds[kind]
        runner = decode_runner(run, shape, tuning) if kind == "decode" else run
        held.update(runner(spec, {b.name: held[b.name] for b in spec.bindings}, n_tokens))

    outputs, done = [], 0
    for chunk in chunks:
        n_tokens = chunk or 1
        rows = np.zeros((max(1, *chunks) if chunk else 1, *qkv.shape[1:]), np.float32)
        rows[:n_tokens] = qkv[done : done + n_tokens]
        held["qkv"] = padded(rows)
        held["state"] = padded(np.array([offset + done, n_tokens, 0, 0], np.uint32))
        held["output"] = padded(poisoned(len(rows) * shape.n_heads * shape.head_dim))
        for kind in ("append", "prefill") if chunk else ("decode",):
            dispatch(kind, n_tokens)
        size = n_tokens * shape.n_heads * shape.head_dim
        found = np.frombuffer(held["output"], np.float32)[:size]
        outputs.append(found.reshape(n_tokens, shape.n_heads, shape.head_dim))
        done += n_tokens
    return np.concatenate(outputs)


def direct_attention(
    shape: AttentionShape, qkv: Array, norms: Sequence[Array], factor: float = 1.0
) -> Array:
    """Return the attention of a whole sequence, (tokens, heads, head_dim), from the definitions.

    `qkv` is (tokens, qkv_heads, head_dim). As transformers computes it, in float64 and without a
    cache; of windows only those without sinks.
    """
    n_tokens, size = len(qkv), shape.head_dim
    n_rep = shape.n_heads // shape.n_kv_heads
    each = 2 if shape.gated else 1
    rows = qkv.astype(np.float64)
    queries = rows[:, : each * shape.n_heads].reshape(n_tokens, shape.n_heads, each, size)
    q, gates = queries[:, :, 0], queries[:, :, -1]
    k, v = np.split(rows[:, each * shape.n_heads :], 2, axis=1)
    q, k = _direct_norms(shape, q, norms[0]), _direct_norms(shape, k, norms[1])
    q, k = (_direct_rope(x, shape.rotated, factor) for x in (q, k))
    positions = np.arange(n_tokens)
    if shape.query_scaling is not None:
        scaling = shape.query_scaling
        steps = np.floor(positions / scaling.original_context)
        q = q * (1 + scaling.beta * np.log(1 + steps))[:, None, None]
    out = np.empty_like(q)
    for head in range(shape.n_heads):
        scores = q[:, head] @ k[:, head // n_rep].T
        scores *= size**-0.5 if shape.scale is None else shape.scale
        if shape.soft_cap is not None:
            scores = np.tanh(scores / shape.soft_cap) * shape.soft_cap
        distance = positions[:, None] - positions
        hidden = distance < 0
        if shape.window is not None:
            hidden |= distance >= shape.window.size
        scores[hidden] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, head // n_rep]
    return out / (1 + np.exp(-gates)) if shape.gated else out


def _direct_norms(shape: AttentionShape, x: Array, weights: Array) -> Array:
    norm = shape.qk_norm
    if norm is None:
        return x
    if norm.kind == "head_rms":
        return x / np.sqrt((x * x).mean(axis=2, keepdims=True) + norm.eps) * weights
    if norm.kind == "full_rms":
        flat = x.reshape(len(x), -1)
        normed = flat / np.sqrt((flat * flat).mean(axis=1, keepdims=True) + norm.eps) * weights
        return normed.reshape(x.shape)
    scaled = (x - x.mean(axis=2, keepdims=True)) / np.sqrt(x.var(axis=2, keepdims=True) + norm.eps)
    return scaled * weights.reshape(x.shape[1:])


def _direct_rope(x: Array, rotary_dim: int, factor: float) -> Array:
    angles = np.outer(np.arange(len(x)), inv_freq_of(rotary_dim))[:, None]
    cosine, sine = factor * np.cos(angles), factor * np.sin(angles)
    low, high, rest = np.split(x, [rotary_dim // 2, rotary_dim], axis=2)
    return np.concatenate([low * cosine - high * sine, high * cosine + low * sine, rest], axis=2)
