"""Chooses the forms of a model's products by measuring them, once for each shape on a machine.

Attention of a chunk counts as one, of the shape of its heads.

A GPU that the table of `kernels/tuning.py` does not have is asked when a model is first loaded:
each candidate runs over the model's own weights, must give what the plain form gives, and is taken
if it is faster. The choice is kept for later loads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, get_args

from py_engine.chat_config import ActivationDtype
from py_engine.gpu.types import Buffer, Clock, Device
from py_engine.kernels.form_candidates import candidates, forms_as_json, forms_from_json
from py_engine.kernels.forms import Form, Forms, Product, ProductKind
from py_engine.kernels.tuning import Tuning, kinds_to_measure
from py_engine.kernels.wgsl import SNIPPETS_DIGEST
from py_engine.models.base import LoadProgress
from py_engine.models.decoder_steps import DecoderSteps
from py_engine.models.form_bench import FormBench
from py_engine.models.ops import Step

logger = logging.getLogger(__name__)

_MUST_GAIN = 0.97
"""A form must take less than this part of the plain one's time: clocks are not exact."""

_MOST_STEPS: Mapping[ProductKind, int] = {"gemv": 8, "gemm": 1, "attention": 1}
"""Matrices that are read in turn: one of a GEMV's alone might stay in a cache."""

_PRODUCTS: Mapping[str, tuple[ProductKind, str, str]] = {
    "gemv": ("gemv", "ROWS", "COLUMNS"),
    "gemm": ("gemm", "ROWS", "COLUMNS"),
    "attention_prefill": ("attention", "N_HEADS", "HEAD_DIM"),
}
"""By a kernel's name: the kind of product, and the constants that tell its shape."""

_TOKENS = 64
"""Tokens of the chunk on which a GEMM is measured, on GPUs that may be slow."""

_TOKENS_OF_TABLE = 256
"""Tokens of that chunk on the GPUs of the table: fewer would leave most of one idle."""

_TOLERANCES: dict[ActivationDtype, float] = {"float32": 1e-3, "float16": 5e-3, "int8": 2e-2}
"""By how much sums in another order may differ, relative to the largest; and where x is rounded,
which in 8 bits costs 0.4 % of the largest, twice that for a gate times its up. The rest is room for
bad luck."""

_MOST_ATTEMPTS = 2
"""Measurements that may come to no end before the GPU is not asked again."""

StepsIn = Callable[[Tuning], DecoderSteps]
"""Returns a model's programs in the forms of a tuning."""


class ChoiceStore(Protocol):
    """Keeps texts by keys for as long as it can; it raises no errors."""

    async def load(self, key: str) -> str | None: ...
    async def save(self, key: str, text: str) -> None: ...


@dataclass(frozen=True)
class Timing:
    """What a form takes for one product of a shape; None where it fails or its results differ."""

    product: Product
    form: Form | None
    seconds: float | None


class FormChooser:
    """Knows the forms that were the fastest, and finds them; `clock_of` gives a device's clock."""

    def __init__(self, store: ChoiceStore, clock_of: Callable[[Device], Clock]) -> None:
        self._store = store
        self._clock_of = clock_of

    async def known(self, device: Device, activation_dtype: ActivationDtype) -> Forms:
        """Return what was chosen on this GPU before, among the forms that the dtype allows."""
        text = await self._store.load(_key(device, activation_dtype))
        try:
            return {} if text is None else forms_from_json(text)
        except ValueError as error:
            logger.warning("what is kept of a choice of kernels cannot be read: %s", error)
            return {}

    async def choose(
        self,
        device: Device,
        tuning: Tuning,
        steps_in: StepsIn,
        buffers: Mapping[str, Buffer],
        prefill_chunk_size: int,
        on_progress: Callable[[LoadProgress], None],
    ) -> Forms:
        """Return the forms for all products of a model, after measuring those that are not known.

        `tuning` has what is known; `buffers` are the model's, by name: activations are overwritten.
        What the table tells is not measured, nor a GPU on which this came to no end before. Raises
        DeviceLostError.
        """
        kinds = kinds_to_measure(device.info, device.limits, tuning.activation_dtype)
        wanted = _unmeasured(tuning, steps_in, kinds)
        if not wanted:
            return tuning.measured
        key = _key(device, tuning.activation_dtype)
        attempts = f"{key} attempts"
        before = await self._store.load(attempts)
        n_before = int(before) if before is not None and before.isdecimal() else 0
        if n_before >= _MOST_ATTEMPTS:
            logger.warning("measuring kernels has failed on this GPU: they stay as they are")
            return tuning.measured
        await self._store.save(attempts, str(n_before + 1))
        n_tokens = _TOKENS if "gemv" in kinds else _TOKENS_OF_TABLE
        timings = await measure_forms(
            device,
            self._clock_of(device),
            tuning,
            steps_in,
            buffers,
            min(n_tokens, prefill_chunk_size),
            on_progress,
            kinds,
        )
        chosen = {**tuning.measured, **dict.fromkeys(wanted), **fastest_forms(timings)}
        await self._store.save(key, forms_as_json(chosen))
        await self._store.save(attempts, "0")
        return chosen


async def measure_forms(
    device: Device,
    clock: Clock,
    tuning: Tuning,
    steps_in: StepsIn,
    buffers: Mapping[str, Buffer],
    n_tokens: int,
    on_progress: Callable[[LoadProgress], None],
    kinds: Collection[ProductKind] = get_args(ProductKind),
) -> list[Timing]:
    """Time every form of the products of `kinds` that `tuning` has not measured.

    Those of a chunk have `n_tokens`. The plain form comes first. Products that have but one are
    left out. Raises ShaderCompilationError for the model's own forms, and DeviceLostError.
    """
    tuning = _without_joining(tuning)
    unknown = _unmeasured(tuning, steps_in, kinds)
    plain_steps = steps_in(replace(tuning, measured=dict.fromkeys(unknown)))
    plain = _products(plain_steps)
    trials: list[tuple[Product, Form | None, Sequence[Step]]] = []
    for kind, forms in candidates(device.info, device.limits, tuning.activation_dtype).items():
        products = [product for product in plain if product[0] == kind and product in unknown]
        for form in forms:
            formed = _products(steps_in(replace(tuning, measured=dict.fromkeys(products, form))))
            trials += [
                (product, form, formed[product])
                for product in products
                if _sources(formed[product]) != _sources(plain[product])
            ]
    with_choice = dict.fromkeys(product for product, *_ in trials)
    trials = [*((product, None, plain[product]) for product in with_choice), *trials]
    # What the model compiles besides would be measured as well.
    await device.compile(steps_in(tuning).kernels)
    timings = []
    with FormBench(device, clock, buffers, plain_steps.caches, n_tokens) as bench:
        for done, (product, tried, steps) in enumerate(trials):
            on_progress(LoadProgress("choice", done, len(trials)))
            tolerance = _TOLERANCES["float32" if tried is None else tried.activation_dtype]
            seconds = await bench.seconds(steps, plain[product], tolerance)
            timings.append(Timing(product, tried, seconds))
    on_progress(LoadProgress("choice", len(trials), len(trials)))
    return timings


def fastest_forms(timings: Iterable[Timing]) -> Forms:
    """Return the fastest right form of each product, the plain one unless another gains enough."""
    fastest: dict[Product, Timing] = {}
    for timing in timings:
        best = fastest.setdefault(timing.product, timing)
        if timing.seconds is None or best.seconds is None:
            continue
        needed = _MUST_GAIN if best.form is None else 1.0
        if timing.seconds < needed * best.seconds:
            fastest[timing.product] = timing
    return {product: timing.form for product, timing in fastest.items()}


def _products(steps: DecoderSteps) -> dict[Product, list[Step]]:
    """Return some steps of each product."""
    found: dict[Product, list[Step]] = {}
    for step in (*steps.next_logits.of_any, *steps.prefill):
        if step.kernel.name not in _PRODUCTS:
            continue
        kind, *shape = _PRODUCTS[step.kernel.name]
        rows, columns = (int(step.kernel.constants[name]) for name in shape)
        of_product = found.setdefault((kind, rows, columns), [])
        if len(of_product) < _MOST_STEPS[kind]:
            of_product.append(step)
    return found


def _unmeasured(
    tuning: Tuning, steps_in: StepsIn, kinds: Collection[ProductKind]
) -> frozenset[Product]:
    """Return a model's products of these kinds that `tuning` has not measured."""
    if not kinds:
        return frozenset()
    found = _products(steps_in(tuning)).keys() - tuning.measured.keys()
    return frozenset(product for product in found if product[0] in kinds)


def _without_joining(tuning: Tuning) -> Tuning:
    """Return a tuning all of whose products read x, so that all forms of one compute the same."""
    keys = tuning.split_keys
    return tuning if keys is None else replace(tuning, split_keys=replace(keys, joined_bytes=0))


def _sources(steps: Sequence[Step]) -> list[str]:
    return [step.kernel.source for step in steps]


def choice_key(device: Device, *more: str) -> str:
    """Return the key of a choice on this GPU with the kernels as they are, told apart by `more`."""
    info = device.info
    names = (info.vendor, info.architecture, info.device, info.description, SNIPPETS_DIGEST[:16])
    return " ".join((*names, *more))


def _key(device: Device, activation_dtype: ActivationDtype) -> str:
    return choice_key(device, *(() if activation_dtype == "float32" else (activation_dtype,)))
