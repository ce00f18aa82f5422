"""20,000 draws on the GPU per setting against exact probabilities, by chi-square.

Seeds are fixed, so that a setting either always passes or always fails.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pytest

from py_engine.kernels.reference_sampling import uniform_number
from py_engine.kernels.sampling import adjust, draw, mask
from tests.conftest import EngineWorker
from tests.kernels.sampling_cases import chi_square_p, mask_words, packed

VOCABULARY = 97
N_DRAWS = 20_000
LOGITS = np.random.default_rng(2026).normal(0, 1.5, VOCABULARY).astype(np.float32)


async def _draw_many(
    specs: dict[str, Any], buffers: dict[str, bytes], roles: list[str], n_draws: int
) -> bytes:
    """Run the kernels before the draw once, then the draw `n_draws` times; return its counts."""
    from py_engine.gpu import adapter
    from py_engine.gpu.types import Binding, Dispatch, KernelSpec

    if getattr(adapter, "device_under_test", None) is None:
        adapter.device_under_test = await adapter.request_device()
    device = adapter.device_under_test
    for spec in specs.values():
        spec["bindings"] = tuple(Binding(**binding) for binding in spec["bindings"])
    compiled = await device.compile([KernelSpec(**specs[role]) for role in roles])
    made = {name: device.create_buffer(len(data), name) for name, data in buffers.items()}
    try:
        for name, data in buffers.items():
            device.write_buffer(made[name], 0, data)
        *before, draw = [
            Dispatch(
                kernel,
                tuple(
                    made[f"{role} {b.name}"] if f"{role} {b.name}" in made else made[b.name]
                    for b in kernel.spec.bindings
                ),
            )
            for role, kernel in zip(roles, compiled, strict=True)
        ]
        device.program(before, "adjust").submit()
        batch = 500
        draws = device.program([draw] * batch, "draws")
        for _ in range(n_draws // batch):
            draws.submit()
        return await device.read_buffer(made["counts"])
    finally:
        for buffer in made.values():
            buffer.destroy()


@dataclass(frozen=True)
class Setting:
    """Sampling parameters, and what the draw's logits go through before it."""

    name: str
    sampling: dict[str, Any] = field(default_factory=dict)
    allowed: np.ndarray | None = None
    bias: np.ndarray = field(default_factory=lambda: np.zeros(VOCABULARY, np.float32))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(VOCABULARY, np.uint32))


def exact_probabilities(setting: Setting) -> np.ndarray:
    """Return the distribution by the definition, token by token, in float64."""
    given = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0}
    given |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **setting.sampling}
    logits = LOGITS.astype(np.float64) + setting.bias
    for token, count in enumerate(setting.counts):
        if count:
            logits[token] -= given["presence_penalty"] + count * given["frequency_penalty"]
            repetition = given["repetition_penalty"]
            logits[token] *= repetition if logits[token] < 0 else 1 / repetition
    p = np.exp(logits / given["temperature"])
    if setting.allowed is not None:
        p[~setting.allowed] = 0
    p /= p.sum()
    order = sorted(range(VOCABULARY), key=lambda token: -p[token])
    if given["top_k"]:
        order = order[: given["top_k"]]
    mass = sum(p[token] for token in order)
    kept, reached = [], 0.0
    for token in order:
        if reached >= given["top_p"] * mass:
            break
        kept.append(token)
        reached += p[token]
    kept = [token for token in kept if p[token] >= given["min_p"] * p[order[0]]]
    exact = np.zeros(VOCABULARY)
    exact[kept] = p[kept]
    return exact / exact.sum()


_RNG = np.random.default_rng(7)
ALLOWED = _RNG.random(VOCABULARY) < 0.4
BIAS = np.where(_RNG.random(VOCABULARY) < 0.2, _RNG.normal(0, 3, VOCABULARY), 0).astype(np.float32)
COUNTS = _RNG.integers(0, 4, VOCABULARY).astype(np.uint32)
PENALTIES = {"presence_penalty": 0.6, "frequency_penalty": 0.3, "repetition_penalty": 1.4}

SETTINGS = [
    Setting("plain"),
    Setting("cold", {"temperature": 0.5}),
    Setting("hot", {"temperature": 2.0}),
    Setting("top_k", {"top_k": 10}),
    Setting("top_p", {"top_p": 0.7}),
    Setting("min_p", {"min_p": 0.1}),
    Setting("top_k and top_p", {"top_k": 20, "top_p": 0.8, "temperature": 1.3}),
    Setting("all filters", {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": 1.7}),
    Setting("penalties", PENALTIES, counts=COUNTS),
    Setting("bias", bias=BIAS),
    Setting("mask", allowed=ALLOWED),
    Setting("mask, bias and penalties", PENALTIES, ALLOWED, BIAS, COUNTS),
    Setting(
        "everything",
        {**PENALTIES, "temperature": 1.4, "top_k": 25, "top_p": 0.9, "min_p": 0.02},
        ALLOWED,
        BIAS,
        COUNTS,
    ),
]

WITH_MANY_STEPS = {"all filters", "mask, bias and penalties", "everything"}
"""They always run, for they have in them what the others have one by one."""


def draw_many(worker: EngineWorker, setting: Setting, seed: int, n_draws: int) -> np.ndarray:
    """Return how often each token was drawn on the GPU."""
    kernels = [adjust("adjust", VOCABULARY), *draw(VOCABULARY)]
    if setting.allowed is not None:
        kernels.insert(0, mask("mask", VOCABULARY))
    buffers = {
        "logits": LOGITS,
        "sampling": packed(seed=seed, **setting.sampling),
        "probabilities": np.zeros(VOCABULARY, np.float32),
        "counts": np.zeros(VOCABULARY, np.uint32),
        "adjust counts": setting.counts,
        "bias": setting.bias,
        "mask": mask_words(np.ones(VOCABULARY) if setting.allowed is None else setting.allowed),
        "state": np.zeros(4, np.uint32),
    }
    data = worker.run(
        _draw_many,
        specs={kernel.label: asdict(kernel) for kernel in kernels},
        buffers={name: array.tobytes() for name, array in buffers.items()},
        roles=[kernel.label for kernel in kernels],
        n_draws=n_draws,
    )
    return np.frombuffer(data, np.uint32)[:VOCABULARY]


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(
            each, id=each.name, marks=() if each.name in WITH_MANY_STEPS else pytest.mark.sampled
        )
        for each in SETTINGS
    ],
)
def test_draws_follow_the_distribution(engine_worker: EngineWorker, setting: Setting) -> None:
    counts = draw_many(engine_worker, setting, seed=1234, n_draws=N_DRAWS)
    assert counts.sum() == N_DRAWS
    assert chi_square_p(counts, exact_probabilities(setting)) > 1e-3


def test_the_test_sees_a_small_error(engine_worker: EngineWorker) -> None:
    """A temperature that is 10 % off, and one token too many, are found."""
    counts = draw_many(engine_worker, SETTINGS[2], seed=1, n_draws=N_DRAWS)
    assert chi_square_p(counts, exact_probabilities(Setting("", {"temperature": 2.2}))) < 1e-3
    counts = draw_many(engine_worker, Setting("", {"top_k": 11}), seed=1, n_draws=N_DRAWS)
    assert chi_square_p(counts, exact_probabilities(Setting("", {"top_k": 10}))) == 0


def test_a_seed_repeats_and_others_differ(engine_worker: EngineWorker) -> None:
    seeds = (5, 5, 6, 5 | 1 << 32)
    first, again, *others = (
        draw_many(engine_worker, SETTINGS[0], seed, 2000).tolist() for seed in seeds
    )
    assert first == again
    assert first not in others


@pytest.mark.parametrize("other", [1, 2, 1 << 31, 1 << 32, 12345 << 32])
def test_seeds_are_independent(other: int) -> None:
    """Pairs of numbers that two seeds give at the same step fill the square evenly."""

    def numbers(seed: int) -> np.ndarray:
        low, high = seed & 0xFFFFFFFF, seed >> 32
        return np.array([uniform_number(low, high, step) for step in range(N_DRAWS)])

    first, second = numbers(0), numbers(other)
    even = np.full(256, 1 / 256)
    for a, b in ((first, second), (first[:-1], first[1:]), (second[:-1], second[1:])):
        cells = np.minimum((16 * a).astype(int), 15) * 16 + np.minimum((16 * b).astype(int), 15)
        assert chi_square_p(np.bincount(cells, minlength=256), even) > 1e-3
