"""How much an option changes what the embedded model says next."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.tooling.steps import ROOT
from py_engine.weights.quantization import F32
from tests.conformance.running import load_folder_on_numpy
from tests.support.numpy_device import NumpyDevice

EMBEDDED = ROOT / "web" / "models" / "Llama-Storyteller-7M-q4f16_1-MLC"


@dataclass(frozen=True)
class Change:
    """KL divergences after each token in nats, the share of tokens after which the likeliest next
    one is the same, and the perplexity with the option and without."""

    divergence: F32
    same_first: float
    perplexity: float
    perplexity_before: float

    def __str__(self) -> str:
        return (
            f"{len(self.divergence)} tokens: KL {self.divergence.mean():.2e} nats "
            f"(largest {self.divergence.max():.1e}), likeliest token the same "
            f"{self.same_first:.1%}, perplexity {self.perplexity:.4f} for "
            f"{self.perplexity_before:.4f}"
        )


def change_by(opts: Mapping[str, Any], n_tokens: int) -> Change:
    """Compare the distributions after every token of a text that the model itself wrote."""
    expected, found, tokens = asyncio.run(_distributions(opts, n_tokens))
    rows = np.arange(len(tokens))
    before, after = (float(np.exp(-each[rows, tokens].mean())) for each in (expected, found))
    return Change(
        (np.exp(expected) * (expected - found)).sum(axis=1),
        float((expected.argmax(axis=1) == found.argmax(axis=1)).mean()),
        after,
        before,
    )


async def _distributions(opts: Mapping[str, Any], n_tokens: int) -> tuple[F32, F32, list[int]]:
    """Return the log-probabilities without the option and with it, and the tokens after each."""
    plain = await load_folder_on_numpy(EMBEDDED, NumpyDevice())
    changed = await load_folder_on_numpy(EMBEDDED, NumpyDevice(), opts)
    sampling = SamplingParams(temperature=1, seed=5)
    text = [1]
    plain.start(sampling)
    await plain.prefill(text)
    text.append((await plain.sample()).token_id)
    while len(text) < n_tokens:
        await plain.reserve(1)
        text.append((await plain.decode()).token_id)
    return await _log_probabilities(plain, text), await _log_probabilities(changed, text), text[1:]


async def _log_probabilities(model: Decoder, text: list[int]) -> F32:
    """Return the log-probabilities after each token of a text but the last."""
    model.start(SamplingParams(temperature=0))
    await model.prefill(text[:1])
    model.first_logits()
    rows = [np.array(await model.read_logits())]
    for token_id in text[1:-1]:
        await model.replay([token_id])
        rows.append(np.array(await model.read_logits()))
    logits = np.stack(rows).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    normalised: F32 = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return normalised
