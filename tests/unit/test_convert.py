"""The converter: from a Hugging Face folder to an MLC folder that our own reader takes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import build
from py_engine.config import ChatConfig
from py_engine.errors import (
    ConfigurationFieldError,
    ConversionError,
    MissingFileError,
    MissingTensorError,
    ModelFileFormatError,
    TensorShapeError,
    TruncatedFileError,
    UnknownArchitectureError,
    UnknownQuantizationError,
    UnsupportedModelConfigError,
)
from py_engine.gpu.types import Limits
from py_engine.kernels.formats import WeightFormat
from py_engine.models.model_plan import plan_model
from py_engine.models.registry import decoder_spec
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from py_engine.weights.convert import convert_model
from py_engine.weights.loader import load_weights
from py_engine.weights.quantization import dequantize, stored_value
from tests.conformance.cases import CASES, Case
from tests.conformance.recipe import make_weights
from tests.support.mlc_files import mlc_tensors
from tests.support.numpy_device import NumpyDevice
from tests.support.safetensors_file import write_safetensors

CASE = CASES[0]
TOKENIZER = {
    "added_tokens": [{"id": 9, "content": "<|im_end|>"}],
    "decoder": {
        "type": "Sequence",
        "decoders": [{"type": "ByteFallback"}, {"type": "Strip"}, {"type": "Fuse"}],
    },
    "normalizer": {"type": "Prepend", "prepend": "_"},
}


def case_of(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def make_folder(
    folder: Path, dtype: str = "F32", tied: bool = True, case: Case = CASE, **config: Any
) -> dict[str, np.ndarray]:
    """Write a small Hugging Face model in two files and return its weights."""
    folder.mkdir(parents=True)
    fields = {**case.config, "tie_word_embeddings": tied, **config}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    weights = dict(make_weights(case, 1))
    if not tied:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"] * np.float32(0.5)
    names = list(weights)
    for index, part in enumerate((names[:5], names[5:])):
        path = folder / f"model-{index}.safetensors"
        write_safetensors(path, {name: weights[name] for name in part}, dtype)
    return weights


def load(folder: Path) -> tuple[ChatConfig, dict[str, Any]]:
    """Return a folder's configuration and tensors, once the engine has loaded them."""

    async def run() -> ChatConfig:
        checkpoint = await open_checkpoint(FolderSource(folder))
        config = ChatConfig.from_json(checkpoint.config_json)
        plan = plan_model(checkpoint, config, Limits())
        await load_weights(NumpyDevice(), checkpoint.source, plan, lambda done, total: None)
        return config

    return asyncio.run(run()), mlc_tensors(folder)


def test_quantised_weights_come_back(tmp_path: Path) -> None:
    weights = make_folder(tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")
    _, buffers = load(tmp_path / "mlc")
    name = "model.layers.1.self_attn"
    parts = [weights[f"{name}.{part}_proj.weight"] for part in "qkv"]
    expected = np.concatenate([stored_value(part, "q4f16_1") for part in parts])
    words = buffers[f"{name}.qkv_proj.q_weight"]
    scale = buffers[f"{name}.qkv_proj.q_scale"]
    assert np.array_equal(dequantize(words, scale.astype(np.float32), 64), expected)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("weight_format", ["q0f16", "q0f32"])
def test_plain_weights_come_back_from_each_dtype(
    tmp_path: Path, dtype: str, weight_format: WeightFormat
) -> None:
    weights = make_folder(tmp_path / "hf", dtype)
    convert_model(tmp_path / "hf", tmp_path / "mlc", weight_format)
    _, buffers = load(tmp_path / "mlc")
    name = "model.layers.0.mlp"
    gate, up = (weights[f"{name}.{part}_proj.weight"] for part in ("gate", "up"))
    found = buffers[f"{name}.gate_up_proj.weight"]
    np.testing.assert_allclose(found, np.concatenate([gate, up]), rtol=2**-7, atol=1e-6)
    norm = buffers["model.norm.weight"]
    np.testing.assert_allclose(norm, weights["model.norm.weight"], rtol=2**-7)


def test_qwen2_has_its_biases(tmp_path: Path) -> None:
    case = case_of("qwen2_tied_q4f16")
    weights = make_folder(tmp_path / "hf", "BF16", case=case)
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")
    config, buffers = load(tmp_path / "mlc")
    name = "model.layers.1.self_attn"
    parts = [weights[f"{name}.{part}_proj.bias"] for part in "qkv"]
    found = buffers[f"{name}.c_attn.bias"]
    np.testing.assert_allclose(found, np.concatenate(parts), rtol=2**-8)
    assert (config.context_window_size, config.sliding_window_size) == (128, -1)
    assert decoder_spec(config).ropes[0].inv_freq[4] == pytest.approx(1e-3)


def test_qwen3_has_its_norms_of_heads(tmp_path: Path) -> None:
    weights = make_folder(tmp_path / "hf", case=case_of("qwen3_head_80_q0f16"))
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q0f32")
    config, buffers = load(tmp_path / "mlc")
    for norm in ("q_norm", "k_norm"):
        name = f"model.layers.1.self_attn.{norm}.weight"
        found = buffers[name]
        np.testing.assert_allclose(found, weights[name], rtol=2**-8)
    assert decoder_spec(config).heads.head_dim == 80


def test_qwen3_heads_default_to_128(tmp_path: Path) -> None:
    case = case_of("qwen3_head_128_q0f32")
    make_folder(tmp_path / "hf", case=case, tied=False, head_dim=None)
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q0f32")
    assert decoder_spec(load(tmp_path / "mlc")[0]).heads.head_dim == 128


@pytest.mark.parametrize(
    ("window", "sizes"),
    [
        ({"use_sliding_window": False}, [None, None]),
        ({"use_sliding_window": True}, [None, None]),
        ({"use_sliding_window": True, "max_window_layers": 1}, [None, 64]),
        ({"use_sliding_window": True, "max_window_layers": 0}, [64, 64]),
        ({"use_sliding_window": None, "max_window_layers": 0}, [None, None]),
        ({"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 128}, [None, None]),
    ],
)
def test_windows_of_layers(tmp_path: Path, window: dict[str, Any], sizes: list[int | None]) -> None:
    """As transformers: off unless asked for, from one layer on, and only where it matters."""
    fields: dict[str, Any] = {"sliding_window": 64, "max_window_layers": None, **window}
    make_folder(tmp_path / "hf", case=case_of("qwen3_tied_q4f16"), **fields)
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")
    config = load(tmp_path / "mlc")[0]
    assert (config.context_window_size, config.sliding_window_size) == (128, -1)
    layers = decoder_spec(config).layers
    assert [layer.window and layer.window.size for layer in layers] == sizes


def test_untied_head_is_written(tmp_path: Path) -> None:
    make_folder(tmp_path / "hf", tied=False)
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f32_1")
    assert "lm_head.q_weight" in load(tmp_path / "mlc")[1]


def test_index_has_sizes_and_hashes(tmp_path: Path) -> None:
    make_folder(tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1", shard_bytes=20_000)
    index = json.loads((tmp_path / "mlc" / "tensor-cache.json").read_text())
    assert len(index["records"]) > 3
    for shard in index["records"]:
        data = (tmp_path / "mlc" / shard["dataPath"]).read_bytes()
        assert len(data) == shard["nbytes"]
        assert hashlib.md5(data).hexdigest() == shard["md5sum"]
        assert len(shard["records"]) == 1 or len(data) <= 20_000
    assert 4.5 <= index["metadata"]["BitsPerParam"] < 4.6
    assert load(tmp_path / "mlc")


def test_config_of_the_converted_model(tmp_path: Path) -> None:
    make_folder(tmp_path / "hf", bos_token_id=1, eos_token_id=2)
    generation = {"temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 9], "pad_token_id": None}
    (tmp_path / "hf" / "generation_config.json").write_text(json.dumps(generation))
    added = {"added_tokens_decoder": {"9": {"content": "<|im_end|>"}, "1": {"content": "<s>"}}}
    (tmp_path / "hf" / "tokenizer_config.json").write_text(json.dumps(added))
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1", context_window_size=64)
    config, _ = load(tmp_path / "mlc")
    assert (config.context_window_size, config.prefill_chunk_size) == (64, 64)
    assert (config.temperature, config.top_p) == (0.6, 0.9)
    assert (config.bos_token_id, config.eos_token_ids) == (1, (2, 9))
    assert set(config.tokenizer_files) == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert config.tokenizer_info.token_postproc_method == "byte_fallback"
    assert config.tokenizer_info.prepend_space_in_encode
    assert config.tokenizer_info.strip_space_in_decode
    assert isinstance(config.conv_template, dict)
    assert config.conv_template["stop_token_ids"] == [9]
    assert (tmp_path / "mlc" / "tokenizer.json").is_file()
    assert (tmp_path / "mlc" / "chat_template.jinja").is_file()


def test_given_conversation_template(tmp_path: Path) -> None:
    make_folder(tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1", conv_template={"name": "mine"})
    assert load(tmp_path / "mlc")[0].conv_template == {"name": "mine"}


def test_command_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path / "hf")
    folders = [str(tmp_path / "hf"), str(tmp_path / "mlc")]
    options = build.parse_arguments(["convert", *folders, "--context-window-size", "32"])
    assert options.run(options) == 0
    config, _ = load(tmp_path / "mlc")
    assert (config.quantization, config.context_window_size) == ("q4f16_1", 32)
    assert "MB of weights" in capsys.readouterr().out


def test_command_names_the_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = build.parse_arguments(["convert", str(tmp_path), str(tmp_path / "mlc")])
    assert options.run(options) == 1
    assert "has neither mlc-chat-config.json" in capsys.readouterr().err


def test_a_shortened_context_can_be_raised_again(tmp_path: Path) -> None:
    make_folder(tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1", context_window_size=32)
    data = asyncio.run(FolderSource(tmp_path / "mlc").read_json("mlc-chat-config.json"))
    config = ChatConfig.from_json(data, chat_opts={"context_window_size": 128})
    assert config.context_window_size == 128
    with pytest.raises(ConfigurationFieldError, match="at most 128 tokens"):
        ChatConfig.from_json(data, chat_opts={"context_window_size": 129})


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"model_type": "mamba"}, UnknownArchitectureError, "mamba"),
        ({"attention_bias": True}, MissingTensorError, r"no tensor .*bias"),
        ({"intermediate_size": 100}, UnsupportedModelConfigError, "multiple of 32"),
        ({"rope_parameters": {"rope_type": "mrope"}}, UnsupportedModelConfigError, "mrope"),
        ({"hidden_size": None}, ModelFileFormatError, r"model_config\.hidden_size is missing"),
        ({"vocab_size": 1000}, TensorShapeError, r"embed_tokens.*\[403, 64\].*\[1000, 64\]"),
        ({"num_hidden_layers": 3}, MissingTensorError, r"no tensor 'model\.layers\.2\."),
    ],
)
def test_models_that_cannot_be_converted(
    tmp_path: Path, config: dict[str, Any], error: type[Exception], message: str
) -> None:
    make_folder(tmp_path / "hf", **config)
    with pytest.raises(error, match=message):
        convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")


def test_unknown_quantization(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownQuantizationError, match=r"quantization is 'q9'.*Known are q4f16_0, "
    ):
        convert_model(tmp_path, tmp_path / "mlc", "q9")


def test_folder_without_config_or_weights(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nor config\.json \(one of Hugging Face\)"):
        convert_model(tmp_path, tmp_path / "mlc", "q4f16_1")
    make_folder(tmp_path / "hf")
    for path in (tmp_path / "hf").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(MissingFileError, match=r"has neither model\.safetensors nor"):
        convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")


@pytest.mark.parametrize("damage", [b"", b"\x10", b"\xff" * 8 + b"{}", b"\x04\0\0\0\0\0\0\0nope"])
def test_damaged_safetensors(tmp_path: Path, damage: bytes) -> None:
    make_folder(tmp_path / "hf")
    (tmp_path / "hf" / "model-1.safetensors").write_bytes(damage)
    with pytest.raises((ModelFileFormatError, TruncatedFileError), match=r"model-1\.safetensors"):
        convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")


def test_truncated_safetensors(tmp_path: Path) -> None:
    make_folder(tmp_path / "hf")
    path = tmp_path / "hf" / "model-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TruncatedFileError, match=r"its header says .* Download the file again"):
        convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")


def test_quantised_checkpoint_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "hf")
    path = tmp_path / "hf" / "model-0.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))
    with pytest.raises(TensorShapeError, match=r"is I32, but must be F16 or BF16 or F32\. Choose"):
        convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_weights_too_large_for_their_format(tmp_path: Path, value: float) -> None:
    weights = make_folder(tmp_path / "hf")
    weights["model.norm.weight"][3] = value
    for index, names in enumerate((list(weights)[:5], list(weights)[5:])):
        path = tmp_path / "hf" / f"model-{index}.safetensors"
        write_safetensors(path, {name: weights[name] for name in names})
    with pytest.raises(ConversionError, match=r"final_norm: its largest weight is .* q4f16_1"):
        convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")
