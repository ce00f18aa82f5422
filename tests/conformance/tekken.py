"""Mistral's Tekken, a byte-level vocabulary of 131,072 tokens, as GGUF and in tiktoken."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from py_engine.weights.gguf_vocabulary import CONTROL, NORMAL


class Tekken:
    """A `tekken.json`: `ranks` are of byte sequences, of which the lower merge first."""

    def __init__(self, path: Path) -> None:
        data = json.loads(path.read_text(encoding="utf-8"))
        config = data["config"]
        self.pattern: str = config["pattern"]
        self.n_special: int = config["default_num_special_tokens"]
        count = config["default_vocab_size"] - self.n_special
        self.ranks: dict[bytes, int] = {
            base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in data["vocab"][:count]
        }

    def metadata(self) -> dict[str, Any]:
        """Return what llama.cpp's converter writes."""
        ordered = sorted(self.ranks, key=self.ranks.__getitem__)
        characters = _alphabet()
        texts = {token: "".join(map(characters.__getitem__, token)) for token in ordered}
        merges = [
            f"{texts[left]} {texts[right]}"
            for token in ordered
            if len(token) > 1
            for left, right in [_halves(token, self.ranks)]
        ]
        special = [f"<SPECIAL_{index}>" for index in range(self.n_special)]
        return {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "tekken",
            "tokenizer.ggml.tokens": [*special, *texts.values()],
            "tokenizer.ggml.token_type": [CONTROL] * len(special) + [NORMAL] * len(ordered),
            "tokenizer.ggml.merges": merges,
        }


def _alphabet() -> dict[int, str]:
    """Return the character that GPT-2 writes for each byte (`bytes_to_unicode`)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + index) for index, byte in enumerate(others)
    }


def _halves(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two tokens whose merge makes `token`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, len(ranks)) for a, b in pairwise(parts)]
        best = min(range(len(pairs)), key=pairs.__getitem__)
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]
