"""A Llama with a sliding window and attention sinks, written down as the papers say it.

No cache: for every token and layer it lines up what the token sees, rotates un-rotated keys by
their place in that line, and the query by the last place. transformers has no such model; without
sinks this equals its Mistral, which a test shows.
"""

from __future__ import annotations

import numpy as np

from tests.conformance.fixtures import Fixture
from tests.conformance.recipe import stored_weights

Array = np.ndarray


def dense_attention(q: Array, k: Array, v: Array, window: int, sinks: int, theta: float) -> Array:
    """Return what un-rotated queries, keys and values of a whole sequence give.

    q is (tokens, heads, head_dim), k and v are (tokens, kv_heads, head_dim), the result is
    (tokens, heads, head_dim). A token sees at most `window` tokens, itself included: the first
    `sinks` of the sequence and the latest.
    """
    n_tokens, n_heads, head_dim = q.shape
    n_rep = n_heads // k.shape[1]
    frequencies = theta ** (-2 * np.arange(head_dim // 2) / head_dim)
    turns = np.exp(1j * np.outer(np.arange(n_tokens), frequencies))[:, None]

    def turned(x: Array, first: int) -> Array:
        low, high = np.split(x.astype(np.float64), 2, axis=-1)
        pairs = (low + 1j * high) * turns[first : first + len(x)]
        return np.concatenate([pairs.real, pairs.imag], axis=-1)

    out = np.empty(q.shape)
    for token in range(n_tokens):
        line = list(range(token + 1))
        if len(line) > window:
            line = line[:sinks] + line[len(line) - (window - sinks) :]
        keys = np.repeat(turned(k[line], 0), n_rep, axis=1)
        query = turned(q[token : token + 1], len(line) - 1)[0]
        scores = np.einsum("hd,khd->hk", query, keys) / np.sqrt(head_dim)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        values = np.repeat(v[line].astype(np.float64), n_rep, axis=1)
        out[token] = np.einsum("hk,khd->hd", weights, values)
    return out


def dense_logits(
    fixture: Fixture, token_ids: list[int], window: int, sinks: int, first: int = 0
) -> Array:
    """Return the logits after each token from number `first` on, (tokens, vocab_size), float64."""
    config = fixture.case.config
    stored = stored_weights(fixture.case, fixture.tensors, fixture.seed)
    weights = {name: weight.astype(np.float64) for name, weight in stored.items()}

    def norm(x: Array, name: str) -> Array:
        scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + config["rms_norm_eps"])
        return x / scale * weights[f"{name}.weight"]

    def linear(x: Array, name: str) -> Array:
        return x @ weights[f"{name}.weight"].T

    x = weights["model.embed_tokens.weight"][token_ids]
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        h = norm(x, f"{layer}.input_layernorm")
        q, k, v = (
            linear(h, f"{layer}.self_attn.{part}_proj").reshape(len(h), -1, config["head_dim"])
            for part in "qkv"
        )
        theta = config["rope_parameters"]["rope_theta"]
        attended = dense_attention(q, k, v, window, sinks, theta).reshape(len(h), -1)
        x = x + linear(attended, f"{layer}.self_attn.o_proj")
        h = norm(x, f"{layer}.post_attention_layernorm")
        gate, up = (linear(h, f"{layer}.mlp.{part}_proj") for part in ("gate", "up"))
        x = x + linear(gate / (1 + np.exp(-gate)) * up, f"{layer}.mlp.down_proj")
    head = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
    return linear(norm(x[first:], "model.norm"), head)
