"""What kernels must read and compute, counted by hand for small models."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from py_engine.gpu.types import Binding
from py_engine.models.decoder import Decoder
from py_engine.models.decoder_memory import working_sizes
from py_engine.models.kernel_costs import KernelCost, kernel_costs, step_of_token
from tests.conformance.fixtures import load_fixture
from tests.conformance.running import load_on_numpy
from tests.support.numpy_device import NumpyDevice
from tests.support.profiling import FIXTURES

GQA = "gqa_tied_q4f16"  # 2 layers, width 64, 4 query heads and 2 KV heads of 32


def model_of(folder: Path, name: str, chat_opts: Mapping[str, Any] | None = None) -> Decoder:
    return asyncio.run(load_on_numpy(folder, load_fixture(name), NumpyDevice(), chat_opts))


def decode_costs(model: Decoder, position: int) -> list[KernelCost]:
    dispatches = step_of_token(model.spec, model.steps, position, "sample")
    return kernel_costs(model.spec, model.steps, dispatches, position)


def prefill_costs(model: Decoder, position: int, n_tokens: int) -> list[KernelCost]:
    return kernel_costs(model.spec, model.steps, model.steps.prefill, position, n_tokens)


def by_label(costs: list[KernelCost]) -> dict[str, KernelCost]:
    return {cost.kernel.label.removeprefix("prefill "): cost for cost in costs}


@pytest.mark.parametrize("name", FIXTURES)
def test_all_weights_are_read_once_and_of_a_table_a_row_a_token(name: str, tmp_path: Path) -> None:
    model = model_of(tmp_path, name)
    working = working_sizes(model.spec, model.steps)
    held = {
        name: buffer.nbytes
        for name, buffer in model._buffers.items()
        if (name not in working or name.startswith("delta_"))
        and not name.startswith("positions.")
        and (model.spec.tied or not name.startswith("embedding."))
    }
    head = ("embedding.", "lm_head", "final_norm")
    in_layers = {name: size for name, size in held.items() if not name.startswith(head)}
    logits = 4 * model.vocab_size
    # What appends keys has the norms of heads as well as what attends.
    twice = sum(size for name, size in held.items() if name.endswith(("q_norm", "k_norm")))
    for costs, weights, n_tokens, others in (
        (decode_costs(model, 1), held, 1, logits),
        (prefill_costs(model, 1, 5), in_layers, 5, twice),
    ):
        tables = [cost for cost in costs if cost.kernel.name == "embed"]
        assert len(tables) == (2 if name == "gpt2_q4f16" else 1)
        for table in tables:
            assert 0 < table.nbytes <= n_tokens * 4 * model.spec.hidden_size
        assert tables[0].nbytes >= n_tokens * model.spec.hidden_size // 2
        read = sum(len(cost.steps) * cost.nbytes for cost in costs if cost not in tables)
        slots = sum(cache.shape.slot_bytes for cache in model.steps.caches)
        read -= 2 * (1 + n_tokens) * slots + others
        # Buffers are rounded up.
        assert 0 <= sum(weights.values()) - read < 16 * len(weights)


def test_states_are_read_once_there_are_any(tmp_path: Path) -> None:
    model = model_of(tmp_path, "qwen3_5_grouped_q4f32")
    shape = model.spec.delta
    assert shape is not None
    first, later = (
        by_label(prefill_costs(model, position, 5))["delta"].nbytes for position in (0, 1)
    )
    assert later - first == shape.history_bytes + shape.memory_bytes


def test_keys_grow_with_the_sequence_up_to_the_window(tmp_path: Path) -> None:
    for name in (GQA, "mistral_window_24_q0f32"):
        model = model_of(tmp_path / name, name)
        short, long = (by_label(decode_costs(model, position))["attention"] for position in (9, 59))
        shape = model.steps.caches[0].shape
        seen = 24 if shape.window else 60
        assert long.nbytes - short.nbytes == 2 * shape.slot_bytes * (seen - 10)
        assert long.operations == 4 * shape.n_heads * shape.head_dim * seen
        assert long.shape == f"{shape.n_heads} heads, {seen} keys"


@pytest.mark.parametrize("sinks", [0, 3])
@pytest.mark.parametrize("position", [0, 5, 20, 70])
def test_a_chunk_reads_what_any_of_its_queries_sees(
    position: int, sinks: int, tmp_path: Path
) -> None:
    window = 24
    opts = {
        "context_window_size": -1,
        "sliding_window_size": window,
        "attention_sink_size": sinks,
        "prefill_chunk_size": 10,
    }
    model = model_of(tmp_path, "mistral_window_24_q0f32", opts)
    seen = []
    for query in range(position, position + 9):
        latest = range(max(sinks, query + 1 - (window - sinks)), query + 1)
        seen.append({*range(min(sinks, query + 1)), *latest})
    attention = by_label(prefill_costs(model, position, 9))["attention"]
    keys = len(set.union(*seen))
    heads, kv_heads, head_dim, f16 = 4, 2, 16, 2
    assert attention.shape == f"4 heads, {keys} keys"
    assert attention.nbytes == 2 * keys * kv_heads * head_dim * f16
    # A product and a sum for each element of a head, with a key and with a value.
    assert attention.operations == sum(map(len, seen)) * heads * head_dim * 4


def test_operations_of_a_step_are_those_of_its_shapes(tmp_path: Path) -> None:
    costs = by_label(decode_costs(model_of(tmp_path, GQA), 7))
    assert {name: (cost.shape, cost.operations) for name, cost in costs.items()} == {
        "embed": ("", 0),
        "qkv": ("256 x 64", 2 * 256 * 64),
        "attention": ("4 heads, 8 keys", 4 * 4 * 32 * 8),
        "output": ("64 x 128", 2 * 64 * 128),
        "gate_up": ("192 x 64", 2 * 192 * 64),
        "down": ("64 x 96", 2 * 64 * 96),
        "lm_head": ("403 x 64", 2 * 403 * 64),
        "sample": ("", 0),
    }
    # Four bits a weight, an f16 scale for every 32; the norm's f32.
    assert costs["qkv"].nbytes == 256 * 64 // 2 + 2 * 256 * 2 + 4 * 64
    assert costs["sample"].nbytes == 4 * 403


def test_a_chunk_of_five_tokens_after_three(tmp_path: Path) -> None:
    costs = by_label(prefill_costs(model_of(tmp_path, GQA), 3, 5))

    def weights(rows: int, columns: int) -> int:
        return rows * columns // 2 + rows * columns // 32 * 2

    counts = {name: len(cost.steps) for name, cost in costs.items()}
    assert counts == {name: 1 if name == "embed" else 4 if name == "norm" else 2 for name in costs}
    figures = {n: (cost.shape, cost.nbytes, cost.operations) for n, cost in costs.items()}
    assert figures == {
        "embed": ("", 5 * weights(1, 64), 0),
        "norm": ("", 4 * 64, 0),
        "qkv": ("256 x 64", weights(256, 64), 2 * 256 * 64 * 5),
        # It writes keys and values, and reads activations alone.
        "rope": ("", 0, 0),
        # Queries see 4, 5, 6, 7 and 8 of the 8 keys; keys and values of 2 heads, f16.
        "attention": ("4 heads, 8 keys", 2 * 8 * 2 * 32 * 2, 30 * 4 * 32 * 4),
        "output": ("64 x 128", weights(64, 128), 2 * 64 * 128 * 5),
        "gate_up": ("192 x 64", weights(192, 64), 2 * 192 * 64 * 5),
        "down": ("64 x 96", weights(64, 96), 2 * 64 * 96 * 5),
    }


def test_linear_attention_costs_the_same_for_every_token(tmp_path: Path) -> None:
    model = model_of(tmp_path, "qwen3_5_grouped_q4f32")
    step = by_label(decode_costs(model, 7))["delta"]
    chunk = by_label(prefill_costs(model, 40, 9))["delta"]
    size = {name: int(step.kernel.constants[name]) for name in ("KEY_DIM", "VALUE_DIM")}
    heads = int(step.kernel.constants["N_VALUE_HEADS"])
    assert step.shape == chunk.shape == f"{heads} heads"
    products = 6 * heads * size["KEY_DIM"] * size["VALUE_DIM"]
    assert products < step.operations < 2 * products
    assert chunk.operations == 9 * step.operations


def test_sizes_of_bindings() -> None:
    sizes = {"array<vec4u, 3>": 48, "array<vec2u, 3>": 24, "array<f32, 5>": 20, "array<u32, 1>": 4}
    for kind, nbytes in sizes.items():
        assert Binding("x", "read", kind).nbytes == nbytes
    assert Binding("x", "read", "array<vec2u>").nbytes is None
    assert Binding("x", "read", "Sampling").nbytes is None
