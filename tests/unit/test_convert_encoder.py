"""The converter on BERT folders, as Hugging Face and sentence-transformers write them."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import build
from py_engine.config import ChatConfig
from py_engine.errors import (
    MissingTensorError,
    ModelFileFormatError,
    TensorShapeError,
    UnsupportedModelConfigError,
)
from py_engine.models.embedder import embedding_options
from py_engine.models.encoder_loader import load_embedder
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from py_engine.weights.convert import convert_model
from py_engine.weights.quantization import F32
from tests.conformance.encoder_fixtures import TOKENIZER, load_encoder_fixture
from tests.conformance.encoder_recipe import make_encoder_weights
from tests.support.numpy_device import NumpyDevice
from tests.support.safetensors_file import write_safetensors

FIXTURE = load_encoder_fixture("bert_odd_heads_q4f16")


def make_folder(folder: Path, weights: dict[str, F32] | None = None, **config: Any) -> None:
    """Write a small Hugging Face folder; `weights` replace the fixture's."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**FIXTURE.case.config, **config}))
    shutil.copyfile(TOKENIZER, folder / "tokenizer.json")
    made = make_encoder_weights(FIXTURE.case) if weights is None else weights
    write_safetensors(folder / "model.safetensors", made)


def pool_by(folder: Path, **modes: bool) -> None:
    """Write the files by which sentence-transformers knows the pooling."""
    (folder / "1_Pooling").mkdir()
    fields = {"word_embedding_dimension": 96, **modes}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(fields))
    modules = [{"idx": i, "type": f"sentence_transformers.models.{name}"} for i, name in
               enumerate(("Transformer", "Pooling", "Normalize"))]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))


def vectors(folder: Path) -> np.ndarray:
    async def run() -> np.ndarray:
        source = FolderSource(folder)
        checkpoint = await open_checkpoint(source)
        config = ChatConfig.from_json(checkpoint.config_json)
        model = await load_embedder(NumpyDevice(), checkpoint, config, lambda progress: None)
        return np.array(await model.embed(FIXTURE.sequences))

    return asyncio.run(run())


def renamed(name: str) -> str:
    """Return a tensor's name in an old checkpoint of a model with a head."""
    old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
    return "bert." + old.replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize("is_old", [False, True])
def test_a_converted_folder_gives_the_vectors_of_transformers(
    tmp_path: Path, is_old: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = make_encoder_weights(FIXTURE.case)
    if is_old:
        weights = {renamed(name): weight for name, weight in weights.items()}
        weights["cls.predictions.bias"] = np.zeros(3, np.float32)
    make_folder(tmp_path / "hf", weights)
    options = ["convert", str(tmp_path / "hf"), str(tmp_path / "mlc"), "--quantization", "q4f16_1"]
    assert build.convert(build.parse_arguments(options)) == 0
    found, expected = vectors(tmp_path / "mlc"), FIXTURE.vectors("cls", False)
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()
    assert "MB of weights" in capsys.readouterr().out
    assert (tmp_path / "mlc" / "tokenizer.json").is_file()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_pooling_and_normalisation_are_those_of_sentence_transformers(
    tmp_path: Path, pooling: str
) -> None:
    make_folder(tmp_path / "hf")
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}
    used = "pooling_mode_cls_token" if pooling == "cls" else "pooling_mode_mean_tokens"
    pool_by(tmp_path / "hf", **{**modes, used: True})
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")
    config = json.loads((tmp_path / "mlc" / "mlc-chat-config.json").read_text())
    options = embedding_options(ChatConfig.from_json(config))
    assert (options.pooling, options.normalize) == (pooling, True)
    found, expected = vectors(tmp_path / "mlc"), FIXTURE.vectors(pooling, True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "modes",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode_cls_token": False},
    ],
    ids=str,
)
def test_other_poolings_are_refused(tmp_path: Path, modes: dict[str, bool]) -> None:
    make_folder(tmp_path / "hf")
    pool_by(tmp_path / "hf", **modes)
    with pytest.raises(UnsupportedModelConfigError, match=r"1_Pooling.config\.json: the vectors"):
        convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")


def test_a_shorter_context_keeps_all_positions(tmp_path: Path) -> None:
    make_folder(tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1", context_window_size=30)
    config = json.loads((tmp_path / "mlc" / "mlc-chat-config.json").read_text())
    assert (config["context_window_size"], config["prefill_chunk_size"]) == (30, 30)
    assert config["model_config"]["context_window_size"] == 40


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        ({"vocab_size": 204}, TensorShapeError, r"word_embeddings.*\[203, 96\].*\[204, 96\]"),
        ({"num_hidden_layers": 4}, MissingTensorError, "encoder.layer.3.attention.self.query"),
        ({"hidden_act": "relu"}, UnsupportedModelConfigError, "hidden_act is 'relu'"),
        ({"hidden_size": "96"}, ModelFileFormatError, "hidden_size is '96'"),
    ],
)
def test_what_cannot_be_converted(
    tmp_path: Path, config: dict[str, Any], error: type, text: str
) -> None:
    make_folder(tmp_path / "hf", **config)
    with pytest.raises(error, match=text):
        convert_model(tmp_path / "hf", tmp_path / "mlc", "q4f16_1")
