"""The prebuilt list: how it is made of WebLLM's, and what its models take on the GPU."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.gpu.types import Limits
from py_engine.kernels.tuning import PLAIN
from py_engine.models.attention_limits import most_cache_bytes
from py_engine.models.decoder_memory import working_sizes
from py_engine.models.decoder_steps import decoder_steps
from py_engine.models.encoder import activation_sizes
from py_engine.models.memory_estimate import estimate_memory
from py_engine.models.memory_plan import MemoryPlan
from py_engine.models.registry import ENCODERS, decoder_spec, encoder_spec, model_parameters
from py_engine.tooling.model_catalogue import (
    MODEL_LIST,
    PUBLISHED_LIST,
    architecture_of,
    catalogue,
    json_text,
    memory_report,
    our_record,
)
from py_engine.tooling.model_shapes import model_shapes, record_config
from py_engine.weights.parameters import MatrixParameter, Parameter
from py_engine.weights.uniform import UniformWeights, uniform_weights

PUBLISHED: list[dict[str, Any]] = json.loads(PUBLISHED_LIST.read_text(encoding="utf-8"))
MIB_IN_MB = 2**20 / 1e6
"""WebLLM's figures are in MiB for most models, in MB for some."""


@dataclass(frozen=True)
class Estimated:
    """A record of WebLLM's, and what the planner makes of it."""

    record: dict[str, Any]
    config: ChatConfig
    plan: MemoryPlan


@cache
def estimated() -> dict[str, Estimated]:
    """Return all records whose models have known shapes, by id."""
    found = {}
    for record in PUBLISHED:
        ours = {**record, "architecture": architecture_of(record["model_id"])}
        config = record_config(ours)
        if config is not None:
            found[record["model_id"]] = Estimated(record, config, estimate_memory(config))
    return found


def published(model_id: str) -> dict[str, Any]:
    return next(record for record in PUBLISHED if record["model_id"] == model_id)


def plan_of(model_id: str) -> MemoryPlan:
    return estimated()[model_id].plan


def count(parameters: Iterable[Parameter]) -> int:
    return sum(
        each.rows * each.columns if isinstance(each, MatrixParameter) else each.size
        for each in parameters
    )


def working_buffers(config: ChatConfig, weights: UniformWeights) -> list[int]:
    """Return the sizes of the buffers that are neither weights nor caches."""
    if config.model_type in ENCODERS:
        return list(activation_sizes(encoder_spec(config)).values())
    spec = decoder_spec(config)
    steps = decoder_steps(spec, weights.layouts, most_cache_bytes(Limits()), PLAIN)
    return list(working_sizes(spec, steps).values())


def test_the_list_is_what_the_script_writes() -> None:
    assert MODEL_LIST.read_text(encoding="utf-8") == json_text(catalogue(PUBLISHED))


def test_the_script_makes_the_records() -> None:
    record = {
        "model": "m",
        "model_id": "gemma-2-2b-it-q4f16_1-MLC",
        "required_features": ["x"],
        "vram_required_MB": 1.5,
        "buffer_size_required_bytes": 2,
        "low_resource_required": False,
        "overrides": {"context_window_size": 4096},
    }
    assert our_record(record) == {
        "model": "m",
        "model_id": "gemma-2-2b-it-q4f16_1-MLC",
        "vram_required_MB": 1935,
        "low_resource_required": False,
        "overrides": {"context_window_size": 4096},
        "architecture": "gemma2",
    }
    assert json.loads(json_text([record, record])) == [record, record]
    with pytest.raises(ValueError, match="Unheard-1B is of no known family: add a pattern"):
        architecture_of("Unheard-1B")


def test_only_models_that_do_not_run_keep_webllms_figures() -> None:
    kept = [record for record in PUBLISHED if record["model_id"] not in estimated()]
    architectures = Counter(architecture_of(record["model_id"]) for record in kept)
    assert architectures == {"gemma4": 2, "phi3_v": 2}
    for record in kept:
        assert our_record(record)["vram_required_MB"] == record["vram_required_MB"]
    gemma4 = our_record(published("gemma-4-E2B-it-q4f16_1-MLC"))
    assert gemma4["buffer_size_required_bytes"] == 201326592


def test_shapes_have_the_parameters_that_the_models_have() -> None:
    """A wrong size changes the number, of which every digit is public."""
    unchecked = set(model_shapes())
    for model_id, each in estimated().items():
        (name,) = (name for name in model_shapes() if model_id.startswith(f"{name}-q"))
        found = count(model_parameters(each.config).parameters)
        assert found == model_shapes()[name].parameters, name
        unchecked.discard(name)
    assert not unchecked


@pytest.mark.parametrize(
    "model",
    ["Llama-3.2-1B-Instruct", "SmolLM2-360M-Instruct", "Qwen3-0.6B", "Qwen2.5-0.5B-Instruct"],
)
def test_weights_are_as_large_as_webllm_has_them(model: str) -> None:
    """Two builds of a model differ by their weights alone."""
    plain, quantised = f"{model}-q0f16-MLC", f"{model}-q4f16_1-MLC"
    ours = plan_of(plain).weights - plan_of(quantised).weights
    theirs = published(plain)["vram_required_MB"] - published(quantised)["vram_required_MB"]
    assert ours / 1e6 == pytest.approx(theirs * MIB_IN_MB, rel=5e-3)


@pytest.mark.parametrize(
    ("model", "unit"),
    [
        ("Llama-3.1-8B-Instruct", 1),
        ("gemma-2-2b-it", MIB_IN_MB),
        ("Phi-3-mini-4k-instruct", MIB_IN_MB),
        ("stablelm-2-zephyr-1_6b", MIB_IN_MB),
        ("TinyLlama-1.1B-Chat-v1.0", MIB_IN_MB),
    ],
)
def test_caches_are_as_large_as_webllm_has_them(model: str, unit: float) -> None:
    """Two records of a model differ by the caches of their contexts."""
    long, short = f"{model}-q4f16_1-MLC", f"{model}-q4f16_1-MLC-1k"
    plans = [plan_of(long), plan_of(short)]
    ours = plans[0].in_full - plans[0].working - plans[1].in_full + plans[1].working
    theirs = published(long)["vram_required_MB"] - published(short)["vram_required_MB"]
    assert ours / 1e6 == pytest.approx(theirs * unit, rel=1e-3)


def test_figures_are_within_webllms() -> None:
    """They are lower where WebLLM has caches of f32 or the logits of a whole chunk."""
    ratios = {
        model_id: each.plan.in_full / 2**20 / each.record["vram_required_MB"]
        for model_id, each in estimated().items()
    }
    assert len(ratios) == 161
    # WebLLM's figure is less than the weights and the cache that it says it has.
    assert 1.05 < ratios.pop("Hermes-2-Pro-Mistral-7B-q4f16_1-MLC") < 1.15
    assert max(ratios.values()) < 1.02
    quantised = [ratio for name, ratio in ratios.items() if "q4f16_1" in name]
    assert sorted(quantised)[len(quantised) // 2] > 0.8


def test_no_record_needs_larger_buffers_than_any_adapter_has() -> None:
    most = Limits().max_storage_buffer_binding_size
    for each in estimated().values():
        parameters = model_parameters(each.config).parameters
        weights = uniform_weights(parameters, each.config.quantization, "mlc", Limits())
        caches = (cache.cache_bytes for cache in each.plan.caches)
        working = working_buffers(each.config, weights)
        assert max(*weights.buffers.values(), *caches, *working) <= most
        assert sum(working) == each.plan.working
    assert "buffer_size_required_bytes" not in our_record(published("gemma-2b-it-q4f16_1-MLC"))


def test_the_report_compares_with_webllm() -> None:
    records = [published("Llama-3.2-1B-Instruct-q4f16_1-MLC"), published("phi-2-q4f16_1-MLC")]
    lines = memory_report([*records, published("gemma-4-E2B-it-q4f16_1-MLC")]).splitlines()
    assert lines[0].split() == ["Llama-3.2-1B-Instruct-q4f16_1-MLC", "850", "MB", "0.967"]
    assert lines[-1].startswith("2 records, median of WebLLM's figure 0.8")
