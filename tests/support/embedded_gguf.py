"""The site's embedded model as a GGUF file, of which every weight is the same number.

MLC's 4-bit codes are (code - 7) * scale and Q4_0's (code - 8) * d, both for 32 weights of a row, so
that a code more is the same weight.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from py_engine.weights.gguf_vocabulary import CONTROL, NORMAL, USER_DEFINED
from tests.support.gguf_file import FileTensor, gguf_bytes

FOLDER = Path(__file__).parents[2] / "web" / "models" / "Llama-Storyteller-7M-q4f16_1-MLC"
_NAMES = {
    "model.embed_tokens": ("token_embd",),
    "model.norm": ("output_norm",),
    "input_layernorm": ("attn_norm",),
    "post_attention_layernorm": ("ffn_norm",),
    "self_attn.qkv_proj": ("attn_q", "attn_k", "attn_v"),
    "self_attn.o_proj": ("attn_output",),
    "mlp.gate_up_proj": ("ffn_gate", "ffn_up"),
    "mlp.down_proj": ("ffn_down",),
}

Array = npt.NDArray[Any]


def embedded_gguf() -> bytes:
    """Return the file."""
    config = json.loads((FOLDER / "mlc-chat-config.json").read_text(encoding="utf-8"))
    arrays = _read_arrays()
    tensors: dict[str, FileTensor] = {}
    for name, array in arrays.items():
        module, kind = name.rsplit(".", 1)
        block, names = _names(module)
        if kind == "weight":
            data = array.astype(np.float32)
            tensors[f"{block}{names[0]}.weight"] = FileTensor(data.shape, "F32", data.tobytes())
        elif kind == "q_weight":
            blocks = _q4_0(array, arrays[f"{module}.q_scale"])
            for ours, part in zip(names, _parts(blocks, names, config), strict=True):
                shape = (len(part), 32 * (part.shape[1] // 18))
                tensors[f"{block}{ours}.weight"] = FileTensor(shape, "Q4_0", part.tobytes())
    return gguf_bytes({**_metadata(config["model_config"]), **_tokenizer()}, tensors)


def _read_arrays() -> dict[str, Array]:
    index = json.loads((FOLDER / "tensor-cache.json").read_text(encoding="utf-8"))
    arrays: dict[str, Array] = {}
    for shard in index["records"]:
        data = (FOLDER / shard["dataPath"]).read_bytes()
        for record in shard["records"]:
            count = record["nbytes"] // np.dtype(record["dtype"]).itemsize
            flat = np.frombuffer(data, record["dtype"], count, record["byteOffset"])
            arrays[record["name"]] = flat.reshape(record["shape"])
    return arrays


def _names(module: str) -> tuple[str, tuple[str, ...]]:
    if not module.startswith("model.layers."):
        return "", _NAMES[module]
    _, _, number, inner = module.split(".", 3)
    return f"blk.{number}.", _NAMES[inner]


def _q4_0(words: Array, scales: Array) -> Array:
    """Return the blocks of each row, u8 (rows, 18 groups): d, then codes i and i + 16 in a byte."""
    codes = (words[..., None] >> (4 * np.arange(8, dtype=np.uint32))) & np.uint32(15)
    groups = codes.reshape(*scales.shape, 32).astype(np.uint8) + np.uint8(1)
    packed = groups[..., :16] | (groups[..., 16:] << 4)
    scale_bytes = np.ascontiguousarray(scales)[..., None].view(np.uint8)
    return np.concatenate([scale_bytes, packed], axis=-1).reshape(len(words), -1)


def _parts(blocks: Array, names: tuple[str, ...], config: dict[str, Any]) -> list[Array]:
    """Return the rows of each tensor; those of q and k in pairs, as Llama's are in GGUF."""
    if len(names) < 3:
        return np.split(blocks, len(names))
    model = config["model_config"]
    heads = (model["num_attention_heads"], model["num_key_value_heads"])
    ends = np.cumsum([count * model["head_dim"] for count in heads])
    q, k, v = np.split(blocks, ends)
    paired = [
        part.reshape(count, 2, -1, part.shape[1]).swapaxes(1, 2).reshape(part.shape)
        for part, count in zip((q, k), heads, strict=True)
    ]
    return [*paired, v]


def _metadata(model: dict[str, Any]) -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "llama.context_length": model["context_window_size"],
        "llama.embedding_length": model["hidden_size"],
        "llama.block_count": model["num_hidden_layers"],
        "llama.feed_forward_length": model["intermediate_size"],
        "llama.attention.head_count": model["num_attention_heads"],
        "llama.attention.head_count_kv": model["num_key_value_heads"],
        "llama.attention.key_length": model["head_dim"],
        "llama.attention.layer_norm_rms_epsilon": model["rms_norm_eps"],
        "llama.rope.freq_base": model["position_embedding_base"],
        "llama.rope.dimension_count": model["head_dim"],
    }


def _tokenizer() -> dict[str, Any]:
    data = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    config = json.loads((FOLDER / "tokenizer_config.json").read_text(encoding="utf-8"))
    ids = data["model"]["vocab"]
    added = {entry["id"]: entry["special"] for entry in data["added_tokens"]}
    kinds = {True: CONTROL, False: USER_DEFINED, None: NORMAL}
    tokens = sorted(ids, key=ids.__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [kinds[added.get(index)] for index in range(len(tokens))],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in data["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": ids[config["bos_token"]],
        "tokenizer.ggml.eos_token_id": ids[config["eos_token"]],
        "tokenizer.chat_template": config["chat_template"],
    }
