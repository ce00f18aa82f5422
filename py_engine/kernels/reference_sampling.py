"""The references of the sampling kernels; see `kernels/reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from py_engine.kernels.reference_batch import by_rows, span
from py_engine.kernels.sampling import GREEDY_TEMPERATURE, SAMPLING_STRIDE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from py_engine.kernels.reference import Array, Buffers, Constants

_FIELDS = [
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

SAMPLING = np.dtype(_FIELDS)
"""The struct `sampling`; a reference gets an array of it and takes the first."""

_SAMPLING_SLOT = np.dtype(
    {
        "names": [name for name, _ in _FIELDS],
        "formats": [kind for _, kind in _FIELDS],
        "itemsize": SAMPLING_STRIDE,
    }
)

STRUCTS = {"Sampling": SAMPLING, "array<SamplingSlot>": _SAMPLING_SLOT}
"""What elements bindings of WGSL's structs have."""

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


def kept_by_top_p(probabilities: Array, top_p: float, mass: float | None = None) -> Array:
    """Return which tokens are in the smallest set whose mass reaches `top_p`, with border ties.

    `mass` is that of all tokens, by default of these.
    """
    if top_p >= 1:
        return np.ones(len(probabilities), bool)
    order = np.sort(probabilities)[::-1]
    reached = np.cumsum(order) >= top_p * (order.sum() if mass is None else mass)
    # Rounding may leave the mass of few tokens below what all of them have.
    last = int(np.argmax(reached)) if reached.any() else -1
    kept: Array = probabilities >= order[last]
    return kept


def distribution(logits: Array, sampling: Array) -> Array:
    """Return the probabilities (float64) that a draw has at a temperature above 0."""
    return filtered(relative(logits.astype(np.float64), sampling), sampling)


def relative(logits: Array, sampling: Array) -> Array:
    """Return the probabilities of logits relative to the likeliest token's."""
    found: Array = np.exp((logits - logits.max()) / sampling["temperature"])
    return found


def filtered(p: Array, sampling: Array, mass: float | None = None) -> Array:
    """Return what the filters leave of probabilities relative to the likeliest one, normalised.

    `mass` is that of all tokens, if these are some of them.
    """
    p = p * kept_by_top_k(p, int(sampling["top_k"]))
    p = p * kept_by_top_p(p, float(sampling["top_p"]), mass)
    p = p * (p >= float(sampling["min_p"]))
    normalised: Array = p / p.sum()
    return normalised


def _places(constants: Constants, row: int, words: Sequence[int]) -> Mapping[str, slice]:
    """Return what a row has of a batch's buffers."""
    state, _, sampling, _ = words
    vocabulary, slices = constants["VOCABULARY"], constants.get("SLICES", 0)
    of_tokens = span(row * vocabulary, vocabulary)
    return {
        "logits": span(row * constants["LOGITS_STRIDE"], vocabulary),
        "probabilities": of_tokens,
        "candidates": of_tokens,
        "survey": span(row * 4 * slices, 4 * slices),
        "kept_tokens": span(row * slices, slices),
        "state": span(state, 4),
        "sampling": span(sampling, 1),
    }


_by_rows = by_rows(_places)


@_by_rows
def survey(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Find each slice's likeliest token, its logit and the mass relative to it."""
    logits, temperature = buffers["logits"], float(buffers["sampling"][0]["temperature"])
    for number, first in enumerate(range(0, len(logits), constants["SLICE"])):
        own = logits[first : first + constants["SLICE"]].astype(np.float64)
        mass = (
            np.exp((own - own.max()) / temperature).sum() if temperature > GREEDY_TEMPERATURE else 0
        )
        found = (own.max(), mass, first + int(np.argmax(own)), 0)
        buffers["survey"][4 * number : 4 * number + 4] = found


@_by_rows
def narrow(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Keep of each slice the tokens that the filters can leave, and a few more."""
    sampling, found = buffers["sampling"][0], buffers["survey"].reshape(-1, 4).astype(np.float64)
    temperature, top_k = float(sampling["temperature"]), int(sampling["top_k"])
    if temperature <= GREEDY_TEMPERATURE:
        return
    logits = buffers["logits"].astype(np.float64)
    p = np.exp((logits - found[:, 0].max()) / temperature)
    if 0 < top_k < len(p):
        maxima = np.sort(np.exp((found[:, 0] - found[:, 0].max()) / temperature))[::-1]
        least = 0.99 * maxima[top_k - 1] if top_k <= len(maxima) else 0.0
    else:
        share = (1 - float(sampling["top_p"])) * p.sum() / len(p)
        least = max(float(sampling["min_p"]), 0.99 * share)
    for number, first in enumerate(range(0, len(p), constants["SLICE"])):
        own = p[first : first + constants["SLICE"]]
        kept = np.flatnonzero((own > 0) & (own >= np.float32(least)))
        buffers["candidates"][first : first + len(kept)] = first + kept
        buffers["probabilities"][first : first + len(kept)] = own[kept]
        buffers["kept_tokens"][number] = len(kept)


def _draw(constants: Constants, buffers: Buffers, u: float) -> int:
    """Return the token at `u` of the cumulative distribution; the likeliest one when greedy."""
    sampling = buffers["sampling"][0]
    is_greedy = sampling["temperature"] <= GREEDY_TEMPERATURE
    if "survey" not in buffers:
        if is_greedy:
            return int(np.argmax(buffers["logits"]))
        logits = buffers["logits"].astype(np.float64)
        p = relative(logits, sampling)
        buffers["probabilities"][:] = p
        return int(np.argmax(np.cumsum(filtered(p, sampling)) > u))
    found = buffers["survey"].reshape(-1, 4).astype(np.float64)
    if is_greedy:
        return int(found[np.argmax(found[:, 0]), 2])
    firsts = range(0, constants["VOCABULARY"], constants["SLICE"])
    kept = [first + np.arange(n) for first, n in zip(firsts, buffers["kept_tokens"], strict=True)]
    at = np.concatenate(kept)
    scales = np.exp((found[:, 0] - found[:, 0].max()) / sampling["temperature"])
    # After top_k the mass is that of the tokens that it leaves, which all are here.
    has_top_k = 0 < sampling["top_k"] < constants["VOCABULARY"]
    mass = None if has_top_k else float((found[:, 1] * scales).sum())
    p = filtered(buffers["probabilities"][at].astype(np.float64), sampling, mass)
    return int(buffers["candidates"][at[np.argmax(np.cumsum(p) > u)]])


@_by_rows
def sample(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Draw a token, greedily or through the inverse CDF; count it; advance the state."""
    state, sampling = buffers["state"], buffers["sampling"][0]
    seed_low, seed_high = int(sampling["seed_low"]), int(sampling["seed_high"])
    u = uniform_number(seed_low, seed_high, int(state[constants["STATE_STEP"]]))
    token = _draw(constants, buffers, min(u, 1 - 1e-9))
    if "counts" in buffers:
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
    scaled = (logits - logits.max()) / (temperature if temperature > GREEDY_TEMPERATURE else 1.0)
    values = np.maximum(scaled - np.log(np.exp(scaled).sum()), _UNLIKELY).astype(np.float32)
    likeliest = np.argsort(-logits, kind="stable")[: int(sampling["top_logprobs"])]
    tokens = np.array([buffers["state"][constants["STATE_TOKEN"]], *likeliest], np.uint32)
    drawn[0 : 2 * len(tokens) : 2] = tokens
    drawn[1 : 2 * len(tokens) : 2] = values[tokens].view(np.uint32)
