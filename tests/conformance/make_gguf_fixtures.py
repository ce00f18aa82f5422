"""Writes `fixtures/gguf/`: python -m tests.conformance.make_gguf_fixtures (gguf, sentencepiece).

`types.gguf` is by gguf's writer and `types.json` what gguf's reader sees in it;
`sentencepiece.gguf` is the vocabulary of a sentencepiece model, `sentencepiece.json` the ids that
sentencepiece gives to texts.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import sentencepiece

from py_engine.weights.gguf_types import GGML_TYPES, READABLE_TYPES
from py_engine.weights.gguf_vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN
from tests.support.tokenizer_files import CORPUS, TEXTS

FOLDER = Path(__file__).parent / "fixtures" / "gguf"
PIECES = (
    "aaaa aaaaa aaaaaaa",
    "the lazy fox's lazy foxes",
    "  a   b    c     d",
    "tabs\t\tand\nlines\n\n\n",
    "naïve café: 12345.678 €",
    "<unk> <s> </s> ▁ ▁▁",
)


def write_types(path: Path) -> None:
    """Write a file with every kind of metadata and of tensor that can be read."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("k.u8", 200)
    writer.add_int8("k.i8", -100)
    writer.add_uint16("k.u16", 60000)
    writer.add_int16("k.i16", -30000)
    writer.add_uint32("k.u32", 4000000000)
    writer.add_int32("k.i32", -2000000000)
    writer.add_uint64("k.u64", 2**63)
    writer.add_int64("k.i64", -(2**62))
    writer.add_float32("k.f32", 0.25)
    writer.add_float64("k.f64", 1 / 3)
    writer.add_bool("k.bool", True)
    writer.add_string("k.string", "Grüße 日本")
    writer.add_array("k.integers", [1, 2, -3])
    writer.add_array("k.floats", [0.5, -1.5])
    writer.add_array("k.strings", ["a", "", "ß"])
    writer.add_array("k.flags", [True, False])
    chance = np.random.default_rng(4)
    for number, form in GGML_TYPES.items():
        if form.name in READABLE_TYPES:
            data = chance.integers(0, 256, (3, 2 * form.nbytes), np.uint8)
            kind = gguf.GGMLQuantizationType(number)
            is_float = form.elements == 1 and form.name != "BF16"
            stored = (
                data.view(np.float32 if form.name == "F32" else np.float16) if is_float else data
            )
            writer.add_tensor(f"{form.name}.weight", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_types(path: Path) -> dict[str, Any]:
    """Return what gguf's reader sees in a file."""
    reader = gguf.GGUFReader(path)
    metadata = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    tensors = {
        tensor.name: {
            "shape": [int(size) for size in reversed(tensor.shape)],
            "dtype": tensor.tensor_type.name,
            "byte_offset": int(tensor.data_offset),
            "nbytes": int(tensor.n_bytes),
            "sha256": hashlib.sha256(tensor.data.tobytes()).hexdigest(),
        }
        for tensor in reader.tensors
    }
    return {"metadata": metadata, "tensors": tensors}


def train() -> sentencepiece.SentencePieceProcessor:
    """Return a small sentencepiece model of Llama 2's kind."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in (*CORPUS, *PIECES) for line in text.split("\n")]),
        model_writer=model,
        model_type="bpe",
        vocab_size=560,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        character_coverage=0.99,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def piece_kind(model: sentencepiece.SentencePieceProcessor, index: int) -> int:
    """Return a piece's kind, as GGUF has it."""
    if model.is_unknown(index):
        return UNKNOWN
    if model.is_control(index):
        return CONTROL
    return BYTE if model.is_byte(index) else NORMAL


def vocabulary(model: sentencepiece.SentencePieceProcessor) -> dict[str, Any]:
    """Return the metadata that llama.cpp's converter makes of a sentencepiece model."""
    ids = range(model.vocab_size())
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [model.id_to_piece(index) for index in ids],
        "tokenizer.ggml.scores": [model.get_score(index) for index in ids],
        "tokenizer.ggml.token_type": [piece_kind(model, index) for index in ids],
        "tokenizer.ggml.bos_token_id": model.bos_id(),
        "tokenizer.ggml.eos_token_id": model.eos_id(),
        "tokenizer.ggml.unknown_token_id": model.unk_id(),
    }


def write_vocabulary(path: Path, metadata: dict[str, Any]) -> None:
    """Write a file with a vocabulary and no tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(metadata["tokenizer.ggml.model"])
    writer.add_token_list(metadata["tokenizer.ggml.tokens"])
    writer.add_token_scores(metadata["tokenizer.ggml.scores"])
    writer.add_token_types(metadata["tokenizer.ggml.token_type"])
    writer.add_bos_token_id(metadata["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(metadata["tokenizer.ggml.eos_token_id"])
    writer.add_unk_token_id(metadata["tokenizer.ggml.unknown_token_id"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def special_texts(model: sentencepiece.SentencePieceProcessor) -> list[str]:
    """Return the special tokens, which sentencepiece takes for text where they stand in one."""
    ids = range(model.vocab_size())
    return [model.id_to_piece(i) for i in ids if piece_kind(model, i) in (UNKNOWN, CONTROL)]


def case(model: sentencepiece.SentencePieceProcessor, text: str) -> dict[str, Any]:
    """Return a text with its ids, and the text that they decode to."""
    ids = model.encode(text)
    return {"text": text, "ids": ids, "decoded": model.decode(ids)}


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True, parents=True)
    write_types(FOLDER / "types.gguf")
    seen = read_types(FOLDER / "types.gguf")
    (FOLDER / "types.json").write_text(json.dumps(seen, indent=1) + "\n")
    model = train()
    write_vocabulary(FOLDER / "sentencepiece.gguf", vocabulary(model))
    special = special_texts(model)
    texts = [
        text
        for text in (*TEXTS, *CORPUS[:5], *PIECES)
        if not any(token in text for token in special)
    ]
    lines = [json.dumps(case(model, text)) for text in texts]
    (FOLDER / "sentencepiece.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
