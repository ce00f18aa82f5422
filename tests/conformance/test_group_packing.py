"""AWQ's and GPTQ's files: models with packed layers are the same as with these layers in f32.

The packing here is written after AutoAWQ's `WQLinear_GEMM.from_linear` and AutoGPTQ's
`QuantLinear.pack`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.errors import TensorShapeError, UnsupportedModelConfigError
from py_engine.json_fields import JsonFields
from py_engine.models.loader import load_model
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from py_engine.weights.group_packing import group_packing
from tests.conformance.running import Decoded, decoded, drive
from tests.support.numpy_device import NumpyDevice
from tests.support.safetensors_file import write_safetensors

Array = np.ndarray[Any, Any]

HIDDEN, INNER, HEADS, KV_HEADS, VOCAB = 256, 384, 4, 2, 203
CONFIG = {
    "model_type": "qwen2",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "num_hidden_layers": 2,
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
KV = HIDDEN * KV_HEADS // HEADS
LINEARS = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KV, HIDDEN),
    "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PROMPT = [5 * index % VOCAB for index in range(21)]


def packed(values: Array, order: tuple[int, ...] = tuple(range(8))) -> Array:
    """Return numbers of 4 bits of the last axis, eight to an i32: number order[i] at bits 4 i."""
    groups = values.reshape(*values.shape[:-1], -1, 8)[..., list(order)].astype(np.uint32)
    shifted = groups << (4 * np.arange(8, dtype=np.uint32))
    return np.bitwise_or.reduce(shifted, axis=-1).view(np.int32)


def pack(method: str, codes: Array, zeros: Array, scales: Array) -> dict[str, Array]:
    """Return a layer's tensors of codes [in][out] and of zeros and scales [groups][out]."""
    if method == "awq":
        tensors = {"qweight": packed(codes, AWQ_ORDER), "qzeros": packed(zeros, AWQ_ORDER)}
    else:
        stored = zeros if method == "gptq_v2" else (zeros - 1) & 15
        qweight = np.ascontiguousarray(packed(np.ascontiguousarray(codes.T)).T)
        tensors = {"qweight": qweight, "qzeros": packed(stored)}
        tensors["g_idx"] = np.arange(len(codes), dtype=np.int32) // (len(codes) // len(zeros))
    return {**tensors, "scales": scales}


def make_models(method: str, group_size: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return a model's tensors with packed layers, and with the same layers in f32."""
    rng = np.random.default_rng(group_size)
    common: dict[str, Array] = {
        name: rng.normal(size=(VOCAB, HIDDEN)).astype(np.float16)
        for name in ("model.embed_tokens.weight", "lm_head.weight")
    }
    common["model.norm.weight"] = np.ones(HIDDEN, np.float16)
    native, plain = dict(common), dict(common)
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            native[f"{prefix}{norm}.weight"] = np.full(HIDDEN, 1.125, np.float16)
        for part, size in (("q", HIDDEN), ("k", KV), ("v", KV)):
            bias = rng.normal(size=size).astype(np.float16)
            native[f"{prefix}self_attn.{part}_proj.bias"] = bias
        for name, (rows, columns) in LINEARS.items():
            groups = columns // group_size
            codes = rng.integers(0, 16, (columns, rows))
            zeros = rng.integers(1, 16, (groups, rows))
            scales = rng.uniform(0.005, 0.02, (groups, rows)).astype(np.float16)
            for kind, tensor in pack(method, codes, zeros, scales).items():
                native[f"{prefix}{name}.{kind}"] = tensor
            spread = [np.repeat(each, group_size, axis=0) for each in (zeros, scales)]
            values = (codes - spread[0]).astype(np.float32) * spread[1].astype(np.float32)
            plain[f"{prefix}{name}.weight"] = np.ascontiguousarray(values.T)
    shared = {
        name: each for name, each in native.items() if name.endswith(("norm.weight", ".bias"))
    }
    return native, plain | shared


def quantization_config(method: str, group_size: int) -> dict[str, Any]:
    common = {"bits": 4, "group_size": group_size}
    if method == "awq":
        return {**common, "quant_method": "awq", "version": "GEMM", "zero_point": True}
    return {**common, "quant_method": "gptq", "desc_act": False, "checkpoint_format": method}


def run(folder: Any, config: dict[str, Any], tensors: dict[str, Array]) -> Decoded:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", tensors, None)
    device = NumpyDevice()

    async def load_and_drive() -> dict[str, Any]:
        checkpoint = await open_checkpoint(FolderSource(folder))
        opened = ChatConfig.from_json(checkpoint.config_json, chat_opts={"prefill_chunk_size": 16})
        model = await load_model(device, checkpoint, opened, lambda progress: None)
        found = await drive(model, PROMPT, 4, [1])
        model.destroy()
        return found

    return decoded(asyncio.run(load_and_drive()))


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("method", ["awq", "gptq", "gptq_v2"])
def test_packed_layers_are_worth_what_their_formula_says(
    method: str, group_size: int, tmp_path: Any
) -> None:
    native, plain = make_models(method, group_size)
    config = {**CONFIG, "quantization_config": quantization_config(method, group_size)}
    ours = run(tmp_path / "native", config, native)
    theirs = run(tmp_path / "plain", CONFIG, plain)
    assert ours.tokens == theirs.tokens
    for found, expected in zip(ours.logits, theirs.logits, strict=True):
        assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()
        assert np.ptp(expected) > 1


def test_layers_of_another_shape_are_refused(tmp_path: Any) -> None:
    native, _ = make_models("awq", 64)
    config = {**CONFIG, "quantization_config": quantization_config("awq", 128)}
    with pytest.raises(TensorShapeError, match=r"q_proj\.scales' has shape \[4, 256\]"):
        run(tmp_path / "native", config, native)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"quant_method": "fp8"}, "quant_method is 'fp8', but only awq or gptq"),
        ({"bits": 8}, "bits is 8, but only 4"),
        ({"group_size": -1}, "group_size is -1, but only 32 or 64 or 128"),
        ({"version": "gemv"}, "version is 'gemv'"),
        ({"zero_point": False}, "zero_point is False"),
        ({"quant_method": "gptq", "desc_act": True}, "desc_act is True"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
    ],
)
def test_what_no_kernel_reads_is_refused(changes: dict[str, Any], named: str) -> None:
    data = {"quantization_config": quantization_config("awq", 128) | changes}
    with pytest.raises(UnsupportedModelConfigError, match=rf"quantization_config\.{named}.*GGUF"):
        group_packing(JsonFields(data, "config.json"))


def test_floats_are_not_packed() -> None:
    assert group_packing(JsonFields({}, "config.json")) is None
