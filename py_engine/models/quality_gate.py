"""Whether a model may take activations in 8 bits: asked once for each model on a machine.

Rounding activations costs most models nothing that one would notice, and some a lot. So where an
application asks for it, a model reads a fixed text in both ways when it is first loaded, and keeps
f32 where what it would say next differs too much. The verdict is kept for later loads.
"""

from __future__ import annotations

import json
import logging
import math
from array import array
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from operator import mul

from py_engine.chat_config import ActivationDtype
from py_engine.config import ChatConfig
from py_engine.gpu.types import Buffer, Device
from py_engine.models.base import LoadProgress, SamplingParams
from py_engine.models.compiling import Kernels
from py_engine.models.decoder import Decoder
from py_engine.models.decoder_steps import DecoderSteps
from py_engine.models.form_choice import ChoiceStore, choice_key
from py_engine.models.kv_cache import first_cache
from py_engine.models.spec import DecoderSpec
from py_engine.weights.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

TEXT = (
    "Every evening before sunset the lighthouse keeper climbed the stairs and lit the great lamp. "
    "On clear nights ships could see it from more than twenty miles away. When fog came in from "
    "the sea he rang a bell as well, once a minute, until the morning. He wrote the weather, the "
    "hour and the name of each ship into a thick book, and in all those years he missed no day."
)
"""What models read."""

_MOST_TOKENS = 64
_PREFILLED = 32

MOST_DIVERGENCE = 0.02
"""Nats of KL divergence, on average, up to which activations stay in 8 bits."""


@dataclass(frozen=True)
class Verdict:
    """How much rounding changed what would come next, after each of `n_tokens` tokens.

    `divergence` is the mean KL divergence in nats from the distribution in f32, `agreement` the
    share of tokens after which the likeliest next one was the same.
    """

    divergence: float
    agreement: float
    n_tokens: int

    @property
    def passes(self) -> bool:
        """Whether it is little enough. NaN is not."""
        return self.divergence <= MOST_DIVERGENCE

    def __str__(self) -> str:
        return (
            f"mean KL divergence {self.divergence:.2g} nats (at most {MOST_DIVERGENCE} is taken), "
            f"the likeliest token the same after {self.agreement:.0%} of {self.n_tokens} tokens"
        )


class QualityGate:
    """Knows the verdicts on models on this machine."""

    def __init__(self, store: ChoiceStore) -> None:
        self._store = store

    async def known(self, device: Device, model: Checkpoint) -> Verdict | None:
        """Return the verdict on a model, if there is one."""
        text = await self._store.load(_key(device, model))
        try:
            return None if text is None else Verdict(**json.loads(text))
        except (TypeError, ValueError) as error:
            logger.warning("what is kept of a model's quality cannot be read: %s", error)
            return None

    async def keep(self, device: Device, model: Checkpoint, verdict: Verdict) -> None:
        """Remember a verdict."""
        await self._store.save(_key(device, model), json.dumps(asdict(verdict)))


async def allowed_dtype(
    device: Device, config: ChatConfig, gate: QualityGate | None, model: Checkpoint
) -> tuple[ActivationDtype, bool]:
    """Return what activations may be as far as is known, and whether that must still be judged.

    An application that asked for 8 bits and does not get them reads so in the log.
    """
    if config.activation_dtype != "int8":
        return config.activation_dtype if device.info.has_f16 else "float32", False
    if not device.info.has_int8_dot:
        logger.warning(
            "activation_dtype is float32: this browser's WGSL has no integer dot products"
        )
        return "float32", False
    verdict = None if gate is None else await gate.known(device, model)
    if verdict is not None and not verdict.passes:
        warn_of(verdict)
        return "float32", False
    return "int8", gate is not None and verdict is None


def warn_of(verdict: Verdict) -> None:
    """Log that a model does not take activations in 8 bits."""
    logger.warning("activation_dtype is float32: int8 changes this model too much: %s", verdict)


Programs = tuple[DecoderSteps, Kernels]
"""A model's steps and their kernels."""


async def judge(
    device: Device,
    spec: DecoderSpec,
    buffers: Mapping[str, Buffer],
    exact: Programs,
    rounded: Programs,
    token_ids: Sequence[int],
    on_progress: Callable[[LoadProgress], None],
) -> Verdict:
    """Read a text by the programs that round and by those that do not, over a model's buffers.

    Those that do not are of a step alone: of their products of a chunk nothing is used. Raises
    OutOfMemoryError and DeviceLostError.
    """
    tokens = list(token_ids[: min(_MOST_TOKENS, spec.context_window_size)])
    n_first = max(1, min(_PREFILLED, spec.prefill_chunk_size, len(tokens) // 2))
    n_steps = 2 * (len(tokens) - n_first + 1)
    expected: list[array[float]] = []
    divergences: list[float] = []
    agreements: list[bool] = []

    def report() -> None:
        on_progress(LoadProgress("quality", len(expected) + len(divergences), n_steps))

    async for logits in _read(device, spec, buffers, exact, tokens, n_first, by_steps=True):
        expected.append(logits)
        report()
    async for logits in _read(device, spec, buffers, rounded, tokens, n_first, by_steps=False):
        right = expected[len(divergences)]
        divergences.append(divergence(right, logits))
        agreements.append(right.index(max(right)) == logits.index(max(logits)))
        report()
    n_tokens = len(divergences)
    return Verdict(sum(divergences) / n_tokens, sum(agreements) / n_tokens, n_tokens)


async def _read(
    device: Device,
    spec: DecoderSpec,
    buffers: Mapping[str, Buffer],
    programs: Programs,
    tokens: Sequence[int],
    n_first: int,
    *,
    by_steps: bool,
) -> AsyncIterator[array[float]]:
    """Yield the logits after the first tokens, read by steps or as a chunk, and after each next."""
    async with device.check("making room for a text that is read twice"):
        cache = first_cache(device, programs[0].caches)
    try:
        model = Decoder(device, spec, *programs, dict(buffers), cache)
        model.start(SamplingParams(temperature=0), prompt_tokens=len(tokens))
        if by_steps:
            await model.replay(tokens[:n_first])
        else:
            await model.prefill(tokens[:n_first])
            model.first_logits()
        yield await model.read_logits()
        for token_id in tokens[n_first:]:
            await model.replay([token_id])
            yield await model.read_logits()
    finally:
        cache.destroy()


def divergence(right: Sequence[float], found: Sequence[float]) -> float:
    """Return the KL divergence, in nats, of two distributions given as logits."""
    most, most_found = max(right), max(found)
    expected = [logit - most for logit in right]
    other = [logit - most_found for logit in found]
    weights = list(map(math.exp, expected))
    total, total_other = sum(weights), sum(map(math.exp, other))
    mean: float = (sum(map(mul, weights, expected)) - sum(map(mul, weights, other))) / total
    return mean - math.log(total) + math.log(total_other)


def _key(device: Device, model: Checkpoint) -> str:
    """Return the key of a verdict: a model is its address, its configuration and its files."""
    source = model.source
    known = [source.url, source.entry, dict(model.config_json), dict(model.files)]
    digest = sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()
    return choice_key(device, "int8 activations", digest[:32])
