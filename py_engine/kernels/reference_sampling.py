"""The references of the sampling kernels; see `kernels/reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from py_engine.kernels.reference import Array, Buffers, Constants

SAMPLING = np.dtype(
    [
        ("temperature", np.float32),
        ("top_p", np.float32),
        ("min_p", np.float32),
        ("top_k", np.uint32),
        ("seed_low", np.uint32),
        ("seed_high", np.uint32),
        ("presence_penalty", np.float32),
        ("frequency_penalty", np.float32),
        ("repetition_penalty", np.float32),
        ("top_logprobs", np.uint32),
    ]
)
"""The struct `sampling`; a reference gets it as an array of one."""

_GREEDY = 1e-5
_LOWEST = -3.4e38
_UNLIKELY = -9999.0


def uniform_number(seed_low: int, seed_high: int, step: int) -> float:
    """Return the uniform number in (0, 1] of one draw."""

    def pcg(value: int) -> int:
        s = (value * 747796405 + 2891336453) & 0xFFFFFFFF
        word = (((s >> ((s >> 28) + 4)) ^ s) * 277803737) & 0xFFFFFFFF
        return (word >> 22) ^ word

    bits = pcg(seed_low ^ pcg(seed_high ^ pcg(step)))
    return float(np.float32(np.float32(bits >> 8) + np.float32(0.5)) * np.float32(2.0**-24))


def kept_by_top_k(probabilities: Array, top_k: int) -> Array:
    """Return which tokens are among the `top_k` likeliest, with border ties; 0 keeps all."""
    if not 0 < top_k < len(probabilities):
        return np.ones(len(probabilities), bool)
    kept: Array = probabilities >= np.sort(probabilities)[-top_k]
    return kept


def kept_by_top_p(probabilities: Array, top_p: float) -> Array:
    """Return which tokens are in the smallest set whose mass reaches `top_p`, with border ties."""
    if top_p >= 1:
        return np.ones(len(probabilities), bool)
    order = np.sort(probabilities)[::-1]
    reached = np.cumsum(order) >= top_p * order.sum()
    kept: Array = probabilities >= order[int(np.argmax(reached))]
    return kept


def distribution(logits: Array, sampling: Array) -> Array:
    """Return the probabilities (float64) that `sample` draws with at a temperature above 0."""
    logits = logits.astype(np.float64)
    p = np.exp((logits - logits.max()) / sampling["temperature"])
    p *= kept_by_top_k(p, int(sampling["top_k"]))
    p *= kept_by_top_p(p, float(sampling["top_p"]))
    p *= p >= float(sampling["min_p"])
    normalised: Array = p / p.sum()
    return normalised


def sample(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Draw a token, greedily or through the inverse CDF; count it; advance the state."""
    state, sampling = buffers["state"], buffers["sampling"][0]
    token = int(np.argmax(buffers["logits"]))
    if sampling["temperature"] > _GREEDY:
        seed_low, seed_high = int(sampling["seed_low"]), int(sampling["seed_high"])
        u = uniform_number(seed_low, seed_high, int(state[constants["STATE_STEP"]]))
        p = distribution(buffers["logits"], sampling)
        token = int(np.argmax(np.cumsum(p) > min(u, 1 - 1e-9)))
    buffers["counts"][token] += 1
    state[constants["STATE_TOKEN"]] = token
    state[constants["STATE_POSITION"]] += state[constants["STATE_N_TOKENS"]]
    state[constants["STATE_N_TOKENS"]] = 1
    state[constants["STATE_STEP"]] += 1


def mask(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Forbid the tokens whose bit is 0."""
    bits = np.unpackbits(buffers["mask"].view(np.uint8), bitorder="little")
    buffers["logits"][bits[: constants["VOCABULARY"]] == 0] = _LOWEST


def adjust(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Add the bias; apply presence, frequency and repetition penalties to counted tokens."""
    sampling, counts = buffers["sampling"][0], buffers["counts"]
    logits = buffers["logits"].astype(np.float64) + buffers["bias"]
    repetition = float(sampling["repetition_penalty"])
    lowered = logits - sampling["presence_penalty"] - counts * sampling["frequency_penalty"]
    lowered = np.where(lowered < 0, lowered * repetition, lowered / repetition)
    adjusted = np.where(counts > 0, lowered, logits)
    buffers["logits"][:] = np.clip(adjusted, _LOWEST, -_LOWEST)


def logprobs(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Report log-probabilities of the drawn token and of the likeliest ones."""
    sampling, drawn = buffers["sampling"][0], buffers["drawn"]
    temperature = float(sampling["temperature"])
    logits = np.maximum(buffers["logits"].astype(np.float64), _LOWEST)
    scaled = (logits - logits.max()) / (temperature if temperature > _GREEDY else 1.0)
    values = np.maximum(scaled - np.log(np.exp(scaled).sum()), _UNLIKELY).astype(np.float32)
    likeliest = np.argsort(-logits, kind="stable")[: int(sampling["top_logprobs"])]
    tokens = np.array([buffers["state"][constants["STATE_TOKEN"]], *likeliest], np.uint32)
    drawn[0 : 2 * len(tokens) : 2] = tokens
    drawn[1 : 2 * len(tokens) : 2] = values[tokens].view(np.uint32)
