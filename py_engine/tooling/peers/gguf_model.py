"""A model of a real model's shapes with random weights in 4 bits (Q4_0), as a GGUF file.

Written by PyPI's gguf, so that engines of llama.cpp's family and ours load the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from py_engine.tooling.gpu_bench.random_model import model_config

_BLOCK = 32
_BLOCK_BYTES = 18
_SCALE = 0.02
_EPSILON = 1e-5
_THETA = 10000.0
_CONTEXT = 4096
_END = "<|endoftext|>"

_Tensor = tuple[str, tuple[int, ...]]


def write_gguf(shapes: str, path: Path) -> None:
    """Write the file of a model of these shapes, one of `known_shapes`; about 0.6 bytes a weight.

    Its tokens are the 256 bytes, an end, and fillers, so that a text has a token for each byte.
    """
    import gguf

    config = model_config(shapes)
    sizes = config.model_config
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_name(shapes)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(sizes["hidden_size"])
    writer.add_block_count(sizes["num_hidden_layers"])
    writer.add_feed_forward_length(sizes["intermediate_size"])
    writer.add_head_count(sizes["num_attention_heads"])
    writer.add_head_count_kv(sizes["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(_EPSILON)
    writer.add_rope_freq_base(_THETA)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    _add_tokenizer(writer, sizes["vocab_size"])
    random = np.random.default_rng(0)
    for name, shape in _tensors(config.model_type, sizes):
        if len(shape) == 1:
            is_norm = name.endswith("norm.weight")
            values = np.full(shape, float(is_norm), np.float32)
            writer.add_tensor(name, values)
        else:
            codes = _blocks(random, *shape)
            writer.add_tensor(name, codes, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, vocab_size: int) -> None:
    """Write a byte-level BPE without merges to speak of."""
    letters = _byte_letters()
    merged = "zq"  # there must be one
    fillers = [f"filler{number}" for number in range(vocab_size - len(letters) - 2)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([_END, *letters, merged, *fillers])
    writer.add_token_types([3] + [1] * (vocab_size - 1))  # llama.cpp's "control" and "normal"
    writer.add_token_merges([" ".join(merged)])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def _byte_letters() -> list[str]:
    """Return the character that stands for each byte, as GPT-2 has them."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in shown else next(others)) for byte in range(256)]


def _tensors(model_type: str, sizes: Any) -> Iterator[_Tensor]:
    """Return names and shapes of a Llama or a Qwen 2, as llama.cpp has them."""
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    heads, kv_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    head_dim = hidden // heads
    rows = {"q": heads * head_dim, "k": kv_heads * head_dim, "v": kv_heads * head_dim}
    yield "token_embd.weight", (sizes["vocab_size"], hidden)
    yield "output_norm.weight", (hidden,)
    if not sizes["tie_word_embeddings"]:
        yield "output.weight", (sizes["vocab_size"], hidden)
    for layer in range(sizes["num_hidden_layers"]):
        prefix = f"blk.{layer}."
        yield f"{prefix}attn_norm.weight", (hidden,)
        yield f"{prefix}ffn_norm.weight", (hidden,)
        for part, n_rows in rows.items():
            yield f"{prefix}attn_{part}.weight", (n_rows, hidden)
            if model_type == "qwen2":
                yield f"{prefix}attn_{part}.bias", (n_rows,)
        yield f"{prefix}attn_output.weight", (hidden, heads * head_dim)
        yield f"{prefix}ffn_gate.weight", (inner, hidden)
        yield f"{prefix}ffn_up.weight", (inner, hidden)
        yield f"{prefix}ffn_down.weight", (hidden, inner)


def _blocks(random: np.random.Generator, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """Return random Q4_0 blocks, (rows, bytes of a row)."""
    blocks = np.empty((rows * columns // _BLOCK, _BLOCK_BYTES), np.uint8)
    blocks[:, :2] = np.array([_SCALE], np.float16).view(np.uint8)
    blocks[:, 2:] = random.integers(0, 256, (len(blocks), _BLOCK_BYTES - 2), dtype=np.uint8)
    return blocks.reshape(rows, -1)
