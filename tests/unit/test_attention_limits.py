"""Attention that does not fit the GPU is refused before the weights are read, naming what fits."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import LimitSupportError
from py_engine.gpu.types import Limits
from py_engine.models.attention_limits import require_attention_fits
from py_engine.models.decoder_memory import require_chunks_fit
from py_engine.models.loader import load_model
from py_engine.models.registry import decoder_spec
from py_engine.models.spec import DecoderSpec
from tests.support.memory_source import MemorySource
from tests.support.numpy_device import NumpyDevice
from tests.unit.test_llama_spec import MODEL

BYTES_OF_A_TOKEN = 2 * 64
"""Of one KV head: a layer's heads may lie in buffers of their own."""
LONG = {"max_position_embeddings": 1 << 20}
INNER = MODEL["intermediate_size"]
SMALL = Limits(max_storage_buffer_binding_size=1 << 17)


def config_of(**chat_opts: Any) -> ChatConfig:
    data = {
        "model_type": "llama",
        "quantization": "q4f16_1",
        "context_window_size": 4096,
        "model_config": {**MODEL, **LONG},
    }
    return ChatConfig.from_json(data, chat_opts=chat_opts)


def sliding(size: int, sinks: int = 4) -> dict[str, int]:
    return {
        "context_window_size": -1,
        "sliding_window_size": size,
        "attention_sink_size": sinks,
        "prefill_chunk_size": 64,
    }


def refusal(limits: Limits, **chat_opts: Any) -> str:
    with pytest.raises(LimitSupportError) as caught:
        require_attention_fits(decoder_spec(config_of(**chat_opts)), limits)
    return str(caught.value)


def spec_of(**chat_opts: Any) -> DecoderSpec:
    return decoder_spec(config_of(**chat_opts))


def named_size(text: str) -> int:
    found = re.search(r"to at most (\d+) in chat_opts", text)
    assert found, text
    return int(found[1])


@pytest.mark.parametrize("limit", ["max_storage_buffer_binding_size", "max_buffer_size"])
def test_the_longest_context_that_fits_is_named_and_fits(limit: str) -> None:
    limits = replace(Limits(), **{limit: 10_000_000})
    text = refusal(limits, context_window_size=1 << 20)
    assert text.startswith("context_window_size 1048576 needs 134,217,728 bytes")
    size = named_size(text)
    assert size == 10_000_000 // BYTES_OF_A_TOKEN
    require_attention_fits(spec_of(context_window_size=size), limits)
    refusal(limits, context_window_size=size + 1)


def test_the_longest_sliding_window_that_fits_is_named_and_fits() -> None:
    text = refusal(SMALL, **sliding(4096))
    assert text.startswith("sliding_window_size 4096 needs ")
    size = named_size(text)
    assert size == 1024 - 63
    require_attention_fits(spec_of(**sliding(size)), SMALL)
    refusal(SMALL, **sliding(size + 1))


def test_where_nothing_fits_another_model_is_the_remedy() -> None:
    text = refusal(Limits(max_buffer_size=64), context_window_size=1)
    assert text.endswith("at most 64. Choose a model with smaller heads.")


def test_workgroup_memory_is_asked_for_sinks_first() -> None:
    """Four heads of 64 on a KV head: 1,024 bytes of queries, twice with sinks; 2,048 of scores."""
    enough = Limits(max_compute_workgroup_storage_size=4096)
    require_attention_fits(spec_of(**sliding(100)), enough)
    scarce = Limits(max_compute_workgroup_storage_size=3072)
    text = refusal(scarce, **sliding(100))
    assert "with sinks needs 4,096 bytes of workgroup memory, but this GPU has 3,072" in text
    assert "Set attention_sink_size to 0 in chat_opts, or choose" in text
    require_attention_fits(spec_of(**sliding(100, sinks=0)), scarce)
    require_attention_fits(spec_of(), scarce)
    text = refusal(Limits(max_compute_workgroup_storage_size=3071))
    assert "needs 3,072 bytes" in text
    assert text.endswith("3,071. Choose a model with fewer heads for each KV head.")


@pytest.mark.parametrize(
    ("limits", "longest"),
    [
        # The widest rows of a chunk are those of the MLP, f32.
        (Limits(max_storage_buffer_binding_size=1 << 20), (1 << 20) // (4 * INNER)),
        (Limits(max_buffer_size=1 << 20), (1 << 20) // (4 * INNER)),
        (Limits(max_compute_workgroups_per_dimension=300), 300),
    ],
)
def test_the_longest_chunk_that_fits_is_named_and_fits(limits: Limits, longest: int) -> None:
    with pytest.raises(LimitSupportError, match="prefill_chunk_size 2048 needs") as caught:
        require_chunks_fit(spec_of(prefill_chunk_size=2048), limits)
    assert named_size(str(caught.value)) == longest
    require_chunks_fit(spec_of(prefill_chunk_size=longest), limits)
    with pytest.raises(LimitSupportError):
        require_chunks_fit(spec_of(prefill_chunk_size=longest + 1), limits)


@pytest.mark.parametrize(
    ("limits", "chat_opts"),
    [
        (SMALL, {}),
        (Limits(max_storage_buffer_binding_size=1 << 20), {"prefill_chunk_size": 2048}),
    ],
)
def test_nothing_is_read_of_a_model_that_does_not_fit(
    limits: Limits, chat_opts: dict[str, int]
) -> None:
    device, source = NumpyDevice(), MemorySource({})
    device.limits = limits
    with pytest.raises(LimitSupportError):
        asyncio.run(load_model(device, source, config_of(**chat_opts), lambda progress: None))
    assert device.buffers == source.requested == []
