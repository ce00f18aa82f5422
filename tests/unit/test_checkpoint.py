"""Opening a model's files: what kind they are, with which requests, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.errors import (
    AccessDeniedError,
    CrossOriginError,
    MissingFileError,
    ModelFileFormatError,
    NetworkError,
    TruncatedFileError,
)
from py_engine.weights.checkpoint import Checkpoint, open_checkpoint
from tests.support.memory_source import MemorySource
from tests.support.safetensors_file import write_safetensors

CONFIG = {"model_type": "llama", "vocab_size": 7, "max_position_embeddings": 64}
MLC_CONFIG = {"model_type": "llama", "quantization": "q0f16", "vocab_size": 7, "model_config": {}}
INDEX = {
    "records": [
        {
            "dataPath": "s.bin",
            "nbytes": 4,
            "records": [
                {"name": "a", "shape": [2], "dtype": "float16", "nbytes": 4, "byteOffset": 0}
            ],
        }
    ]
}


class Unlisted(MemorySource):
    """A static host: nobody can tell which files there are."""

    async def list_files(self) -> None:  # type: ignore[override]
        return None


def tensors(folder: Path, names: str, dtype: str = "BF16") -> bytes:
    path = folder / "t.safetensors"
    write_safetensors(path, {name: np.ones((2, 3), np.float32) for name in names}, dtype)
    return path.read_bytes()


def hf_files(folder: Path, **more: Any) -> dict[str, str | bytes]:
    return {"config.json": json.dumps(CONFIG), "model.safetensors": tensors(folder, "ab"), **more}


def sharded(folder: Path) -> dict[str, str | bytes]:
    index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
    return {
        "config.json": json.dumps(CONFIG),
        "model.safetensors.index.json": json.dumps(index),
        "m-1.safetensors": tensors(folder, "a"),
        "m-2.safetensors": tensors(folder, "b"),
    }


def opened(source: MemorySource) -> Checkpoint:
    return asyncio.run(open_checkpoint(source))


@pytest.mark.parametrize("kind", [MemorySource, Unlisted])
def test_a_folder_of_mlc(kind: type[MemorySource]) -> None:
    files = {
        "mlc-chat-config.json": json.dumps(MLC_CONFIG),
        "tensor-cache.json": json.dumps(INDEX),
        "s.bin": b"1234",
        "config.json": "{}",
    }
    source = kind(files)
    found = opened(source)
    assert (found.kind, found.index, found.quantization) == ("mlc", "tensor-cache.json", "q0f16")
    assert (found.config_file, found.files) == ("mlc-chat-config.json", {"s.bin": 4})
    assert source.requested == ["mlc-chat-config.json", "tensor-cache.json"]


@pytest.mark.parametrize(
    ("shard", "error"),
    [(b"123", TruncatedFileError), (b"12345", ModelFileFormatError), (None, MissingFileError)],
)
def test_shards_that_are_not_those_of_the_index(shard: bytes | None, error: type) -> None:
    files: dict[str, str | bytes] = {
        "mlc-chat-config.json": json.dumps(MLC_CONFIG),
        "tensor-cache.json": json.dumps(INDEX),
    }
    with pytest.raises(error, match=r"memory:/model/s\.bin .*tensor-cache\.json"):
        opened(MemorySource(files if shard is None else {**files, "s.bin": shard}))


def test_one_file_of_safetensors(tmp_path: Path) -> None:
    source = MemorySource(hf_files(tmp_path))
    found = opened(source)
    assert (found.kind, found.index, found.quantization) == ("hf", "model.safetensors", "q0bf16")
    assert set(found.tensors) == {"a", "b"}
    assert source.requested == ["config.json", "model.safetensors"]


def test_one_file_on_a_static_host(tmp_path: Path) -> None:
    assert opened(Unlisted(hf_files(tmp_path))).files.keys() == {"model.safetensors"}


@pytest.mark.parametrize("kind", [MemorySource, Unlisted])
def test_shards_of_safetensors(tmp_path: Path, kind: type[MemorySource]) -> None:
    found = opened(kind(sharded(tmp_path)))
    assert found.index == "model.safetensors.index.json"
    assert {name: record.file for name, record in found.tensors.items()} == {
        "a": "m-1.safetensors",
        "b": "m-2.safetensors",
    }


@pytest.mark.parametrize(
    ("dtype", "quantization"), [("F32", "q0f32"), ("F16", "q0f16"), ("BF16", "q0bf16")]
)
def test_the_format_is_that_of_the_tensors(tmp_path: Path, dtype: str, quantization: str) -> None:
    files = {**hf_files(tmp_path), "model.safetensors": tensors(tmp_path, "ab", dtype)}
    assert opened(MemorySource(files)).quantization == quantization


def test_the_configuration_says_what_the_files_say(tmp_path: Path) -> None:
    config = {**CONFIG, "sliding_window": 32, "rope_theta": 5e5, "eos_token_id": None}
    generation = {"temperature": 0.6, "eos_token_id": [2, 5]}
    added = {"added_tokens_decoder": {"6": {"content": "<|im_end|>"}}}
    files = hf_files(
        tmp_path,
        **{
            "config.json": json.dumps(config),
            "generation_config.json": json.dumps(generation),
            "tokenizer_config.json": json.dumps(added),
            "tokenizer.json": "{}",
        },
    )
    made = ChatConfig.from_json(opened(MemorySource(files)).config_json)
    assert (made.context_window_size, made.sliding_window_size) == (64, -1)
    assert (made.temperature, made.eos_token_ids) == (0.6, (2, 5))
    assert made.model_config["sliding_window"] == 32
    assert made.model_config["position_embedding_base"] == 5e5
    assert made.tokenizer_files == ("tokenizer.json", "tokenizer_config.json")
    assert isinstance(made.conv_template, dict)
    assert made.conv_template["stop_token_ids"] == [6]


def test_a_model_without_an_end_has_none(tmp_path: Path) -> None:
    assert (
        ChatConfig.from_json(opened(MemorySource(hf_files(tmp_path))).config_json).eos_token_ids
        == ()
    )


def test_the_text_s_configuration_of_a_model_with_images(tmp_path: Path) -> None:
    config = {
        "model_type": "gemma3",
        "eos_token_id": [1, 106],
        "text_config": {"model_type": "gemma3_text", "hidden_size": 64, "eos_token_id": None},
        "vision_config": {"hidden_size": 32},
    }
    files = hf_files(tmp_path, **{"config.json": json.dumps(config)})
    made = ChatConfig.from_json(opened(MemorySource(files)).config_json)
    assert (made.model_type, made.model_config["hidden_size"]) == ("gemma3_text", 64)
    assert (made.vocab_size, made.context_window_size) == (262208, 131072)
    assert made.eos_token_ids == (1, 106)


@pytest.mark.parametrize("kind", [MemorySource, Unlisted])
@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("config.json", r"has neither mlc-chat-config\.json .* nor config\.json \(one of Hugging"),
        (
            "model.safetensors",
            r"has neither model\.safetensors nor model\.safetensors\.index\.json",
        ),
    ],
)
def test_files_that_are_missing(
    tmp_path: Path, kind: type[MemorySource], lacking: str, message: str
) -> None:
    files = hf_files(tmp_path)
    del files[lacking]
    with pytest.raises(MissingFileError, match=message):
        opened(kind(files))


@pytest.mark.parametrize("refusal", [AccessDeniedError, CrossOriginError])
def test_hosts_that_refuse_what_they_do_not_have(
    tmp_path: Path, refusal: type[NetworkError]
) -> None:
    class Refusing(Unlisted):
        def _data(self, path: str) -> bytes:
            if path not in self.files:
                raise refusal(path)
            return super()._data(path)

    assert opened(Refusing(hf_files(tmp_path))).kind == "hf"
    assert opened(Refusing(sharded(tmp_path))).index == "model.safetensors.index.json"
    mlc = {
        "mlc-chat-config.json": json.dumps(MLC_CONFIG),
        "ndarray-cache.json": json.dumps(INDEX),
    }
    assert opened(Refusing(mlc)).index == "ndarray-cache.json"
    with pytest.raises(refusal, match=r"config\.json"):
        opened(Refusing({}))


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    files = sharded(tmp_path)
    del files["m-2.safetensors"]
    with pytest.raises(MissingFileError, match=r"lacks m-2\.safetensors, which model\.safeten"):
        opened(MemorySource(files))


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    files = {**sharded(tmp_path), "m-2.safetensors": tensors(tmp_path, "ab")}
    with pytest.raises(ModelFileFormatError, match=r"m-1.* and m-2.* both have a tensor 'a'"):
        opened(MemorySource(files))
