"""Tokenizers of tests/support/tokenizer_files.py as the metadata that llama.cpp makes of them."""

from __future__ import annotations

import json
from typing import Any

from py_engine.weights.gguf_vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from tests.support.tokenizer_files import tokenizer_json

PRE = {"gpt2": "gpt-2", "qwen2": "qwen2"}
SPM_SHAPES = ("llama2", "gemma")
SHAPES = (*PRE, *SPM_SHAPES, "bert")


def tokenizer_metadata(shape: str) -> dict[str, Any]:
    """Return `tokenizer.ggml.*` for a shape of SHAPES."""
    return metadata_of(json.loads(tokenizer_json(shape)), shape)


def metadata_of(data: dict[str, Any], shape: str) -> dict[str, Any]:
    """Return `tokenizer.ggml.*` for a tokenizer.json of a shape."""
    added = {entry["id"]: entry for entry in data["added_tokens"]}
    ids = data["model"]["vocab"] | {entry["content"]: index for index, entry in added.items()}
    tokens = sorted(ids, key=ids.__getitem__)
    is_spm = shape in SPM_SHAPES
    metadata = {
        "tokenizer.ggml.model": "bert" if shape == "bert" else "llama" if is_spm else "gpt2",
        "tokenizer.ggml.pre": PRE.get(shape, "default"),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [
            _kind(token, added.get(index), is_spm) for index, token in enumerate(tokens)
        ],
    }
    if shape == "bert":
        phantoms = [
            _with_phantom_space(token, index in added) for index, token in enumerate(tokens)
        ]
        return metadata | {"tokenizer.ggml.tokens": phantoms}
    if not is_spm:
        merges = [" ".join(pair) for pair in data["model"]["merges"]]
        end = {"tokenizer.ggml.eos_token_id": ids["<|im_end|>"]}
        return metadata | {"tokenizer.ggml.merges": merges} | end
    # Training numbers the tokens in the order of their merges.
    scores = [-float(index) for index in range(len(tokens))]
    prefix = {"tokenizer.ggml.add_space_prefix": shape == "llama2"}
    return metadata | {"tokenizer.ggml.scores": scores} | prefix


def _with_phantom_space(token: str, is_special: bool) -> str:
    if is_special:
        return token
    return token.removeprefix("##") if token.startswith("##") else f"▁{token}"


def _kind(token: str, added: dict[str, Any] | None, is_spm: bool) -> int:
    if is_spm and token == "<unk>":
        return UNKNOWN
    if added is not None:
        return CONTROL if added["special"] else USER_DEFINED
    return BYTE if is_spm and token.startswith("<0x") and len(token) == 6 else NORMAL
