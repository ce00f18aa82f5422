"""Every model from Hugging Face's files, loaded as they are, or quantised while loading.

Weights are the same as in MLC's files, and so are the tolerances. Chunks are of an odd size.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from py_engine.config import CHAT_CONFIG_FILE
from tests.conformance.cases import FROM_CHECKPOINTS, GOLDEN, Case
from tests.conformance.fixtures import (
    Dtype,
    fixture_names,
    load_fixture,
    write_hf_folder,
    write_mlc_folder,
    write_model_folder,
)
from tests.conformance.recipe import make_weights
from tests.conformance.running import decode_folder_in_worker, decode_folder_on_numpy
from tests.conformance.test_decoder import assert_agrees
from tests.conftest import EngineWorker

CHUNK = 27

MLC_ONLY = ("llama_q3f16",)
"""Nothing is quantised to 3 bits while it loads."""


def stored_as(case: Case) -> tuple[Dtype, dict[str, Any]]:
    """Return a type for a case's files, and the options to load them with its weights.

    What MLC would quantise is quantised while loading; the rest is loaded as it is.
    """
    opts: dict[str, Any] = {"prefill_chunk_size": CHUNK}
    if case.quantization.startswith("q4"):
        return "F32", {**opts, "quantization": case.quantization}
    return "F16" if "f16" in case.quantization else "BF16", opts


@pytest.mark.sampled
@pytest.mark.parametrize("name", [name for name in fixture_names() if name not in MLC_ONLY])
def test_folder_on_numpy(name: str, tmp_path: Path) -> None:
    fixture = load_fixture(name)
    dtype, opts = stored_as(fixture.case)
    write_hf_folder(fixture, tmp_path, dtype)
    assert_agrees(fixture, decode_folder_on_numpy(tmp_path, fixture, opts))


@pytest.mark.parametrize("family", FROM_CHECKPOINTS)
def test_folder_on_webgpu(family: str, tmp_path: Path, engine_worker: EngineWorker) -> None:
    """Transposed matrices, heads in another order, norms without their 1, norms of single heads."""
    fixture = load_fixture(GOLDEN[family])
    dtype, opts = stored_as(fixture.case)
    write_hf_folder(fixture, tmp_path, dtype)
    assert_agrees(fixture, decode_folder_in_worker(tmp_path, fixture, engine_worker, opts))


def _nested(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a multimodal model whose text model is that of `config`."""
    family = config["model_type"].removesuffix("_text")
    return {"model_type": family, "text_config": config, "vision_config": {"hidden_size": 64}}


def _in_language_model(name: str) -> str:
    return name.replace("model.", "model.language_model.", 1)


@pytest.mark.parametrize(
    ("name", "config", "renamed"),
    [
        ("gqa_tied_q4f16", dict, lambda name: name.removeprefix("model.")),
        ("gpt2_q4f16", dict, lambda name: name.removeprefix("transformer.")),
        ("gemma3_q4f16", _nested, lambda name: f"language_model.{name}"),
        ("gemma3_q4f16", _nested, _in_language_model),
        ("qwen3_5_tied_q4f16", _nested, _in_language_model),
        ("qwen3_5_few_taps_q0f32", _nested, _in_language_model),
    ],
    ids=[
        "llama without its head",
        "the first gpt2",
        "gemma3 of the hub",
        "gemma3 of transformers",
        "qwen3_5, tied",
        "qwen3_5",
    ],
)
def test_other_spellings(
    name: str,
    config: Callable[[dict[str, Any]], dict[str, Any]],
    renamed: Callable[[str], str],
    tmp_path: Path,
) -> None:
    fixture = load_fixture(name)
    dtype, opts = stored_as(fixture.case)
    made = config(fixture.case.config)
    write_hf_folder(fixture, tmp_path, dtype, config=made, renamed=renamed)
    assert_agrees(fixture, decode_folder_on_numpy(tmp_path, fixture, opts))


@pytest.mark.parametrize(
    "name", ["gqa_tied_q4f16", "gpt2_q4f16", "qwen2_tied_q4f16", "qwen3_5_tied_q4f16"]
)
def test_matrices_that_mlc_stores_transposed(name: str, tmp_path: Path) -> None:
    """q4f16_0 has the values of q4f16_1."""
    fixture = load_fixture(name)
    weights = make_weights(fixture.case, fixture.seed)
    write_mlc_folder(fixture.case.config, weights, tmp_path, "q4f16_0", CHUNK)
    assert_agrees(fixture, decode_folder_on_numpy(tmp_path, fixture))


def test_phi_as_mlc_writes_its_first_form(tmp_path: Path) -> None:
    fixture = load_fixture("phi2_heads_q0f32")
    write_model_folder(fixture, tmp_path)
    file = tmp_path / CHAT_CONFIG_FILE
    config, sizes = json.loads(file.read_text()), fixture.case.config
    config["model_type"] = "phi-msft"
    config["model_config"] = {
        "n_embd": sizes["hidden_size"],
        "n_layer": sizes["num_hidden_layers"],
        "n_head": sizes["num_attention_heads"],
        "n_inner": sizes["intermediate_size"],
        "rotary_dim": 32,
        "layer_norm_epsilon": sizes["layer_norm_eps"],
        "position_embedding_base": 10000,
    }
    file.write_text(json.dumps(config))
    assert_agrees(fixture, decode_folder_on_numpy(tmp_path, fixture))


def test_gemma_3_as_mlc_writes_it(tmp_path: Path) -> None:
    fixture = load_fixture("gemma3_q4f16")
    write_model_folder(fixture, tmp_path)
    file = tmp_path / CHAT_CONFIG_FILE
    config, text = json.loads(file.read_text()), dict(fixture.case.config)
    kept = {name: text.pop(name) for name in ("rope_local_base_freq", "sliding_window_pattern")}
    text["position_embedding_base"] = text.pop("rope_theta")
    text["sliding_window_size"] = text.pop("sliding_window")
    config["model_config"] = {
        "text_config": {**text, "rope_scaling": 0, "kwargs": kept},
        "vocab_size": text["vocab_size"],
        "is_text_model": True,
    }
    file.write_text(json.dumps(config))
    assert_agrees(fixture, decode_folder_on_numpy(tmp_path, fixture))
