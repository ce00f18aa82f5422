"""The encoder's program and memory, on the NumPy device."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import LimitSupportError, OutOfMemoryError
from py_engine.gpu.types import Limits
from py_engine.kernels.tuning import Tuning
from py_engine.models.encoder import Encoder, activation_sizes
from py_engine.models.encoder_loader import load_embedder
from py_engine.models.encoder_parameters import encoder_parameters
from py_engine.models.encoder_steps import encoder_steps
from py_engine.models.registry import encoder_spec
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.encoder_fixtures import load_encoder_fixture, write_encoder_folder
from tests.support.layouts import uniform_layouts
from tests.support.numpy_device import NumpyBuffer, NumpyDevice

NAME = "bert_odd_heads_q4f16"


async def load(device: NumpyDevice, folder: Path, **options: Any) -> Encoder:
    write_encoder_folder(load_encoder_fixture(NAME).case, folder)
    source = FolderSource(folder)
    checkpoint = await open_checkpoint(source)
    config = ChatConfig.from_json(checkpoint.config_json, chat_opts=options)
    return await load_embedder(device, checkpoint, config, lambda progress: None)


def test_a_batch_is_one_program(tmp_path: Path) -> None:
    device = NumpyDevice()
    model = asyncio.run(load(device, tmp_path))
    device.dispatched.clear()
    asyncio.run(model.embed([[1, 2], [3]]))
    layer = ["qkv", "attention", "output", "norm", "up", "down", "norm"]
    assert device.dispatched == [
        "embedding", "positions", "token_types", "norm", *layer * model.spec.n_layers, "pool"
    ]  # fmt: skip


def test_later_batches_do_not_see_earlier_ones(tmp_path: Path) -> None:
    model = asyncio.run(load(NumpyDevice(), tmp_path, pooling="mean"))
    first, other = load_encoder_fixture(NAME).sequences[1], [5, 6, 7]
    alone = asyncio.run(model.embed([other]))
    asyncio.run(model.embed([first, first]))
    assert asyncio.run(model.embed([other, other])) == alone * 2


def test_kernels_need_no_more_than_the_default_limits() -> None:
    fixture = load_encoder_fixture(NAME)
    large = {**fixture.case.config, "hidden_size": 1024, "intermediate_size": 4096}
    data = {
        "model_type": "bert",
        "quantization": "q4f16_1",
        "model_config": {**large, "num_attention_heads": 16, "max_position_embeddings": 512},
        "context_window_size": 512,
    }
    spec = encoder_spec(ChatConfig.from_json(data))
    limits = NumpyDevice().limits
    for lanes in (None, 4, 32, 128):
        layouts = uniform_layouts(encoder_parameters(spec), "q4f16_1")
        for kernel in (step.kernel for step in encoder_steps(spec, layouts, Tuning(lanes))):
            assert len(kernel.bindings) <= limits.max_storage_buffers_per_shader_stage
            grid = kernel.workgroups(spec.max_batch_tokens)
            assert max(grid) <= limits.max_compute_workgroups_per_dimension
    assert max(activation_sizes(spec).values()) <= limits.max_storage_buffer_binding_size


def test_a_context_too_long_for_the_gpu_is_told_before_the_download(tmp_path: Path) -> None:
    device = NumpyDevice()
    device.limits = Limits(max_storage_buffer_binding_size=40 * 4 * 3 * 96 - 1)
    with pytest.raises(LimitSupportError, match="context_window_size to at most 39 "):
        asyncio.run(load(device, tmp_path, max_batch_size=1))
    assert device.buffers == []


def test_a_failed_allocation_frees_everything(tmp_path: Path) -> None:
    class FullDevice(NumpyDevice):
        def create_buffer(self, nbytes: int, label: str) -> NumpyBuffer:
            if label == "pooled":
                raise OutOfMemoryError("full")
            return super().create_buffer(nbytes, label)

    device = FullDevice()
    with pytest.raises(OutOfMemoryError):
        asyncio.run(load(device, tmp_path))
    assert device.live_buffers == []
