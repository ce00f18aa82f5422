"""Conversion to every format of MLC's, from every kind of files; what comes out is what goes in."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.gpu.types import Limits
from py_engine.models.model_plan import plan_model
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from py_engine.weights.convert import convert_model
from py_engine.weights.formats import MLC_FORMATS
from py_engine.weights.loader import load_weights
from py_engine.weights.mlc_writer import write_manifest
from tests.conformance.fixtures import load_fixture, write_hf_folder
from tests.support.embedded_gguf import FOLDER as EMBEDDED
from tests.support.embedded_gguf import embedded_gguf
from tests.support.mlc_files import mlc_shapes, mlc_tensors
from tests.support.numpy_device import NumpyDevice

# Fused and separate tensors, transposed ones, heads in turn, norms less one, tables of positions.
FAMILIES = (
    "gqa_tied_q4f16",
    "qwen2_untied_q4f32",
    "gpt2_q4f16",
    "gpt_neox_tied_q0f32",
    "gemma3_q4f16",
    "phi3_shortrope_q0f32",
)


def buffers(folder: Path, **chat_opts: Any) -> dict[str, bytes]:
    """Return what a model has on the device after loading."""

    async def run() -> dict[str, bytes]:
        checkpoint, device = await open_checkpoint(FolderSource(folder)), NumpyDevice()
        config = ChatConfig.from_json(checkpoint.config_json, chat_opts=chat_opts)
        plan = plan_model(checkpoint, config, Limits())
        found = await load_weights(device, checkpoint.source, plan, lambda done, total: None)
        return {name: await device.read_buffer(buffer) for name, buffer in found.items()}

    return asyncio.run(run())


def mlc_values(tensors: dict[str, Any], name: str, columns: int, bits: int) -> np.ndarray:
    """Read MLC's formula out of `group_quantization.py`: (code - max) * scale, one by one."""
    words, scales = tensors[f"{name}.q_weight"], tensors[f"{name}.q_scale"]
    per_word, group = {4: (8, 32), 3: (10, 40)}[bits]
    values = np.empty((words.shape[0], columns), np.float32)
    for k in range(columns):
        code = (words[:, k // per_word] >> np.uint32(k % per_word * bits)) & (2**bits - 1)
        centred = code.astype(np.float32) - (2 ** (bits - 1) - 1)
        values[:, k] = centred * scales[:, k // group].astype(np.float32)
    return values


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("quantization", ["q4f16_1", "q4f32_1"])
def test_converted_is_what_loading_quantises(tmp_path: Path, name: str, quantization: str) -> None:
    """Bit for bit; norms and biases too, because the fixture's are exact in 16 bits."""
    write_hf_folder(load_fixture(name), tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "mlc", quantization)
    quantised = buffers(tmp_path / "hf", quantization=quantization)
    converted = buffers(tmp_path / "mlc")
    assert quantised.keys() == converted.keys()
    for buffer, data in quantised.items():
        is_vector = not buffer.endswith((".weights", ".scales"))
        if is_vector and quantization == "q4f32_1":
            # MLC stores these as bf16.
            first, second = (np.frombuffer(each, "f4") for each in (data, converted[buffer]))
            np.testing.assert_allclose(first, second, rtol=2**-8, err_msg=buffer)
        else:
            assert data == converted[buffer], buffer


@pytest.mark.parametrize("quantization", MLC_FORMATS)
def test_every_format_has_mlc_s_tensors_and_loads(tmp_path: Path, quantization: str) -> None:
    write_hf_folder(load_fixture("qwen2_untied_q4f32"), tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "mlc", quantization)
    config = json.loads((tmp_path / "mlc" / "mlc-chat-config.json").read_text())
    assert config["quantization"] == quantization
    found = mlc_tensors(tmp_path / "mlc")
    assert {name: data.shape for name, data in found.items()} == mlc_shapes(
        ChatConfig.from_json(config)
    )
    index = json.loads((tmp_path / "mlc" / "tensor-cache.json").read_text())
    kinds = {
        (record["dtype"], record["format"])
        for shard in index["records"]
        for record in shard["records"]
    }
    floats = {
        "q0bf16": ("bfloat16", "raw"),
        "q0f32": ("float32", "f32-to-bf16"),
        "q4f32_1": ("float32", "f32-to-bf16"),
    }.get(quantization, ("float16", "raw"))
    codes = set() if quantization.startswith("q0") else {("uint32", "raw")}
    assert kinds == {floats} | codes
    assert buffers(tmp_path / "mlc")


@pytest.mark.parametrize(("quantization", "bits"), [("q4f16_1", 4), ("q4f32_1", 4), ("q3f16_1", 3)])
def test_values_are_those_of_mlc_s_formula(tmp_path: Path, quantization: str, bits: int) -> None:
    """The file read by MLC's formula is what the engine takes it for, and near what went in."""
    fixture = load_fixture("gqa_tied_q4f16")
    write_hf_folder(fixture, tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "mlc", quantization)
    convert_model(tmp_path / "mlc", tmp_path / "plain", "q0f32")
    convert_model(tmp_path / "hf", tmp_path / "whole", "q0f32")
    columns = fixture.case.config["hidden_size"]
    name = "model.layers.1.self_attn.qkv_proj"
    values = mlc_values(mlc_tensors(tmp_path / "mlc"), name, columns, bits)
    plain = mlc_tensors(tmp_path / "plain")[f"{name}.weight"]
    np.testing.assert_allclose(plain, values, rtol=2**-8, atol=1e-7)
    whole = mlc_tensors(tmp_path / "whole")[f"{name}.weight"]
    step = np.abs(whole).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    assert (np.abs(values - whole) <= 0.51 * step + 1e-3).all()


@pytest.mark.parametrize("quantization", ["q4f16_0", "q3f16_0"])
def test_transposed_formats_load_as_the_others(tmp_path: Path, quantization: str) -> None:
    write_hf_folder(load_fixture("qwen2_untied_q4f32"), tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "kn", quantization)
    convert_model(tmp_path / "hf", tmp_path / "nk", quantization.replace("_0", "_1"))
    assert buffers(tmp_path / "kn") == buffers(tmp_path / "nk")


def test_a_model_in_mlc_s_format_can_be_quantised(tmp_path: Path) -> None:
    write_hf_folder(load_fixture("gqa_tied_q4f16"), tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "plain", "q0f16")
    convert_model(tmp_path / "plain", tmp_path / "again", "q4f16_1")
    convert_model(tmp_path / "hf", tmp_path / "once", "q4f16_1")
    assert buffers(tmp_path / "again") == buffers(tmp_path / "once")
    assert buffers(tmp_path / "plain", quantization="q4f16_1") == buffers(tmp_path / "once")


def test_a_gguf_file_converts_with_its_tokenizer(tmp_path: Path) -> None:
    """The embedded model and the GGUF file of the same numbers become the same tensors."""
    (tmp_path / "model.gguf").write_bytes(embedded_gguf())
    convert_model(tmp_path / "model.gguf", tmp_path / "ours", "q0f16")
    convert_model(EMBEDDED, tmp_path / "expected", "q0f16")
    found, expected = (mlc_tensors(tmp_path / name) for name in ("ours", "expected"))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name
    manifest = json.loads((tmp_path / "ours" / "model-manifest.json").read_text())
    assert {"tokenizer.json", "tokenizer_config.json", "tensor-cache.json"} < set(manifest["files"])
    config = json.loads((tmp_path / "ours" / "mlc-chat-config.json").read_text())
    assert (config["quantization"], config["model_type"]) == ("q0f16", "llama")
    assert buffers(tmp_path / "ours")


def test_the_embedded_model_s_manifest_is_of_its_files(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED, tmp_path / "model")
    write_manifest(tmp_path / "model")
    name = "model-manifest.json"
    assert (tmp_path / "model" / name).read_bytes() == (EMBEDDED / name).read_bytes()


def test_the_manifest_has_every_file_and_pieces_of_large_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("py_engine.weights.mlc_writer.MANIFEST_PIECE_BYTES", 1000)
    (tmp_path / "large.bin").write_bytes(bytes(range(250)) * 9)
    (tmp_path / "small.json").write_text("{}")
    write_manifest(tmp_path)
    write_manifest(tmp_path)
    manifest = json.loads((tmp_path / "model-manifest.json").read_text())
    assert (manifest["version"], set(manifest["files"])) == (1, {"large.bin", "small.json"})
    large = manifest["files"]["large.bin"]
    data = (tmp_path / "large.bin").read_bytes()
    assert (large["size"], large["sha256"]) == (2250, hashlib.sha256(data).hexdigest())
    pieces = [hashlib.sha256(data[i : i + 1000]).hexdigest() for i in (0, 1000, 2000)]
    assert (large["piece_bytes"], large["pieces"]) == (1000, pieces)
    assert "pieces" not in manifest["files"]["small.json"]
