"""Models whose matrices and caches are too large for a buffer of the GPU, on NumPy.

Such a matrix lies in several parts, each with a dispatch of its own that writes its rows of the
output; every result must be what it is in one part. The GPU's limit is made so small that most of
these tiny models' matrices are split: tables, products with biases, gates and norms folded in.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.gpu.types import Limits
from py_engine.models.base import SamplingParams
from py_engine.models.loader import load_model
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.cases import CONTEXT
from tests.conformance.fixtures import Fixture, load_fixture, write_hf_folder, write_model_folder
from tests.conformance.test_decoder import TOLERANCE, relative_error
from tests.support.numpy_device import NumpyDevice

CHUNK = 4  # whose rows fit into buffers of these sizes

CASES = [
    # Where the model is, the most bytes of a buffer, and what is in several parts then.
    ("qwen2_tied_q4f16", "mlc", 16_384, ["embedding", "qkv", "gate_up", "down"]),
    ("gemma2_q0f32", "mlc", 16_384, ["embedding", "gate_up", "down"]),
    ("gemma2_q0f32", "hf", 24_576, ["embedding", "gate_up", "down"]),
    ("gpt2_scaled_by_layer_q0f32", "mlc", 8_192, ["embedding", "positions", "qkv", "up", "down"]),
    ("gpt2_scaled_by_layer_q0f32", "hf", 16_384, ["embedding", "positions", "qkv", "up", "down"]),
    ("phi2_heads_q0f32", "mlc", 25_600, ["embedding", "qkv", "up", "down", "lm_head"]),
    ("gpt_neox_tied_q0f32", "hf", 8_192, ["embedding", "qkv", "up", "down"]),
]


async def run(fixture: Fixture, folder: Path, limit: int) -> set[str]:
    """Check a model's tokens and logits; return the roles of what lies in several parts."""
    device = NumpyDevice()
    device.limits = Limits(max_storage_buffer_binding_size=limit)
    checkpoint = await open_checkpoint(FolderSource(folder))
    options = {"context_window_size": CONTEXT, "prefill_chunk_size": CHUNK}
    config = ChatConfig.from_json(checkpoint.config_json, chat_opts=options)
    model = await load_model(device, checkpoint, config, lambda progress: None)
    await model.reserve(1)  # after which all kernels are compiled
    model.start(SamplingParams(temperature=0))
    for start in range(0, len(fixture.prompt_ids), CHUNK):
        await model.prefill(fixture.prompt_ids[start : start + CHUNK])
    tokens = [(await model.sample()).token_id]
    logits = np.array(await model.read_logits())
    expected = fixture.logits_at(len(fixture.prompt_ids) - 1)
    assert relative_error(logits[None], expected[None]) < TOLERANCE
    for _ in fixture.greedy_ids[1:]:
        await model.reserve(1)
        tokens.append((await model.decode()).token_id)
    assert tokens == fixture.greedy_ids
    weights = [b for b in device.buffers if b.data is not None and b.label.endswith(".weights")]
    assert max(buffer.nbytes for buffer in weights) <= limit
    model.destroy()
    assert device.live_buffers == []
    return {b.label.removesuffix(".1.weights") for b in weights if b.label.endswith(".1.weights")}


@pytest.mark.parametrize(("name", "kind", "limit", "split"), CASES)
def test_parts_are_the_whole(
    name: str, kind: str, limit: int, split: list[str], tmp_path: Path
) -> None:
    fixture = load_fixture(name)
    (write_model_folder if kind == "mlc" else write_hf_folder)(fixture, tmp_path)
    found = asyncio.run(run(fixture, tmp_path, limit))
    assert {role.rpartition(".")[2] for role in found} >= set(split)
