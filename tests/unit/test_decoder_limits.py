"""The kernels of real models' shapes stay within what every WebGPU adapter allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from py_engine.gpu.types import Limits
from py_engine.kernels.tuning import Tuning
from py_engine.models.attention_limits import most_cache_bytes, require_attention_fits
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.decoder_steps import decoder_steps
from tests.support.layouts import uniform_layouts
from tests.support.specs import spec_of


def model(
    hidden: int, inner: int, heads: tuple[int, int, int], layers: int = 2, **more: Any
) -> dict[str, Any]:
    n_heads, n_kv_heads, head_dim = heads
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        "head_dim": head_dim,
        "num_hidden_layers": layers,
        "max_position_embeddings": 131072,
        **more,
    }


MODELS = {
    "Llama 3.1 8B": ("llama", model(4096, 14336, (32, 8, 128), vocab_size=128256)),
    "Llama 3.1 70B": ("llama", model(8192, 28672, (64, 8, 128), vocab_size=128256)),
    "Qwen 2.5 7B": ("qwen2", model(3584, 18944, (28, 4, 128), vocab_size=152064)),
    "Qwen 3 8B": ("qwen3", model(4096, 12288, (32, 8, 128), vocab_size=151936)),
    "Ministral 3 3B": ("ministral3", model(3072, 9216, (32, 8, 128), vocab_size=131072)),
    "OLMo 2 7B": ("olmo2", model(4096, 11008, (32, 32, 128), vocab_size=100352)),
    "Phi 4 mini": ("phi3", model(3072, 8192, (24, 8, 128), vocab_size=200064)),
    "Gemma 2B": ("gemma", model(2048, 16384, (8, 1, 256), vocab_size=256000)),
    "Gemma 2 9B": ("gemma2", model(3584, 14336, (16, 8, 256), vocab_size=256000)),
    "Gemma 3 1B": ("gemma3_text", model(1152, 6912, (4, 1, 256), vocab_size=262144)),
    "StableLM 2 1.6B": (
        "stablelm",
        model(2048, 5632, (32, 32, 64), vocab_size=100352, use_qkv_bias=True),
    ),
    "Phi 2": ("phi", model(2560, 10240, (32, 32, 80), vocab_size=51200)),
    "RedPajama 3B": ("gpt_neox", model(2560, 10240, (32, 32, 80), vocab_size=50432)),
    "GPT-2 XL": (
        "gpt2",
        {"n_embd": 1600, "n_head": 25, "n_layer": 2, "n_positions": 4096, "vocab_size": 50257},
    ),
}


@pytest.mark.parametrize("lanes", [None, 4, 32, 64, 128])
@pytest.mark.parametrize("name", MODELS)
def test_kernels_need_no_more_than_the_default_limits(name: str, lanes: int | None) -> None:
    family, config = MODELS[name]
    limits = Limits()
    vocab = config["vocab_size"]
    spec = replace(spec_of(family, config), vocab_size=vocab, active_vocab_size=vocab)
    require_attention_fits(spec, limits)
    layouts = uniform_layouts(decoder_parameters(spec), "q4f16_1")
    steps = decoder_steps(spec, layouts, most_cache_bytes(limits), Tuning(lanes))
    for kernel in steps.kernels:
        assert len(kernel.bindings) <= limits.max_storage_buffers_per_shader_stage, kernel.label
        grid = kernel.workgroups(spec.prefill_chunk_size)
        assert max(grid) <= limits.max_compute_workgroups_per_dimension, kernel.label
    for cache in steps.caches:
        assert cache.shape.cache_bytes <= limits.max_storage_buffer_binding_size
