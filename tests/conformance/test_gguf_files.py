"""GGUF files that PyPI's gguf wrote, and vocabularies that sentencepiece made."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from py_engine.storage.folder import FolderSource
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from py_engine.weights.gguf import GgufFile, read_gguf
from py_engine.weights.gguf_tokenizer import gguf_tokenizer_json
from py_engine.weights.gguf_types import GGML_TYPES, READABLE_TYPES
from tests.conformance.gguf_models import ARCHITECTURES, gguf_name
from tests.support.tokenizer_files import CORPUS, TEXTS

FOLDER = Path(__file__).parent / "fixtures" / "gguf"


def read(path: Path) -> GgufFile:
    return asyncio.run(read_gguf(FolderSource(path.parent), path.name))


def check_like(path: Path, expected: dict[str, Any]) -> None:
    """Compare what we read of a file with what gguf's reader did."""
    file, data = read(path), path.read_bytes()
    assert file.metadata == expected["metadata"]
    found = {
        name: {
            "shape": list(record.shape),
            "dtype": record.dtype,
            "byte_offset": record.byte_offset,
            "nbytes": record.nbytes,
            "sha256": hashlib.sha256(
                data[record.byte_offset : record.byte_offset + record.nbytes]
            ).hexdigest(),
        }
        for name, record in file.tensors.items()
    }
    assert found == expected["tensors"]
    assert {record.dtype for record in file.tensors.values()} == READABLE_TYPES


def open_vocabulary(metadata: Any) -> Tokenizer:
    return asyncio.run(tokenizer_from_json(gguf_tokenizer_json(metadata, "m.gguf")))


def test_a_file_of_ggufs_writer_is_read_as_by_its_reader() -> None:
    check_like(FOLDER / "types.gguf", json.loads((FOLDER / "types.json").read_text()))


def test_ids_equal_sentencepieces() -> None:
    tokenizer = open_vocabulary(read(FOLDER / "sentencepiece.gguf").metadata)
    for case in json.loads((FOLDER / "sentencepiece.json").read_text()):
        assert tokenizer.encode(case["text"]) == case["ids"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]


def test_live_a_new_file_is_read_as_by_ggufs_reader(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the live oracle needs gguf")
    pytest.importorskip("sentencepiece", reason="the script of the fixtures needs sentencepiece")
    from tests.conformance.make_gguf_fixtures import read_types, write_types

    write_types(tmp_path / "types.gguf")
    check_like(tmp_path / "types.gguf", json.loads(json.dumps(read_types(tmp_path / "types.gguf"))))


def test_live_blocks_have_the_sizes_that_gguf_gives_them() -> None:
    gguf = pytest.importorskip("gguf", reason="the live oracle needs gguf")
    theirs = {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    ours = {number: (form.name, form.elements, form.nbytes) for number, form in GGML_TYPES.items()}
    assert ours == theirs


HF_NAMES = {
    "llama": ("model.embed_tokens", "model.layers.3.self_attn.q_proj", "model.norm", "lm_head"),
    "gemma3_text": (
        "model.layers.3.post_attention_layernorm",
        "model.layers.3.pre_feedforward_layernorm",
        "model.layers.3.post_feedforward_layernorm",
        "model.layers.3.self_attn.q_norm",
    ),
    "olmo2": (
        "model.layers.3.post_attention_layernorm",
        "model.layers.3.post_feedforward_layernorm",
        "model.layers.3.self_attn.k_norm",
    ),
    "phi3": ("model.layers.3.self_attn.qkv_proj", "model.layers.3.mlp.gate_up_proj"),
    "phi": (
        "model.layers.3.self_attn.dense",
        "model.layers.3.mlp.fc1",
        "model.layers.3.mlp.fc2",
        "model.final_layernorm",
    ),
    "stablelm": ("model.layers.3.self_attn.q_layernorm", "model.layers.3.mlp.down_proj"),
    "gpt_neox": (
        "gpt_neox.embed_in",
        "gpt_neox.layers.3.attention.query_key_value",
        "gpt_neox.layers.3.attention.dense",
        "gpt_neox.layers.3.post_attention_layernorm",
        "gpt_neox.layers.3.mlp.dense_h_to_4h",
        "gpt_neox.layers.3.mlp.dense_4h_to_h",
        "gpt_neox.final_layer_norm",
        "embed_out",
    ),
    "gpt2": (
        "transformer.wte",
        "transformer.wpe",
        "transformer.h.3.ln_1",
        "transformer.h.3.ln_2",
        "transformer.h.3.attn.c_attn",
        "transformer.h.3.attn.c_proj",
        "transformer.h.3.mlp.c_fc",
        "transformer.h.3.mlp.c_proj",
        "transformer.ln_f",
    ),
    "bert": (
        "embeddings.word_embeddings",
        "embeddings.position_embeddings",
        "embeddings.token_type_embeddings",
        "embeddings.LayerNorm",
        "encoder.layer.3.attention.self.query",
        "encoder.layer.3.attention.self.value",
        "encoder.layer.3.attention.output.dense",
        "encoder.layer.3.attention.output.LayerNorm",
        "encoder.layer.3.intermediate.dense",
        "encoder.layer.3.output.dense",
        "encoder.layer.3.output.LayerNorm",
    ),
}


@pytest.mark.parametrize("model_type", HF_NAMES)
def test_live_the_test_models_names_are_those_of_ggufs_tables(model_type: str) -> None:
    gguf = pytest.importorskip("gguf", reason="the live oracle needs gguf")
    architectures = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(architectures[ARCHITECTURES[model_type]], 8)
    for name in HF_NAMES[model_type]:
        assert gguf_name(model_type, f"{name}.weight") == f"{names.get_name(name)}.weight"


def check_sentencepiece(model: Any, texts: Sequence[str]) -> None:
    from tests.conformance.make_gguf_fixtures import special_texts, vocabulary

    tokenizer, special = open_vocabulary(vocabulary(model)), special_texts(model)
    for text in texts:
        if not any(token in text for token in special):
            ids = model.encode(text)
            assert tokenizer.encode(text) == ids
            assert tokenizer.decode(ids) == model.decode(ids)


def test_live_a_new_sentencepiece_model_gives_our_ids() -> None:
    pytest.importorskip("gguf", reason="the script of the fixtures needs gguf")
    pytest.importorskip("sentencepiece", reason="the live oracle needs sentencepiece")
    from tests.conformance.make_gguf_fixtures import PIECES, train

    check_sentencepiece(train(), (*TEXTS, *CORPUS, *PIECES))


def mistral_folder() -> Path:
    """Return the folder of Mistral's vocabularies, which PyPI's mistral_common brings."""
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        pytest.skip("Mistral's vocabularies are in mistral_common")
    return Path(spec.origin).parent / "data"


def own_texts() -> list[str]:
    """Return this folder's sources, cut into paragraphs."""
    ours = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py")]
    return [part for text in ours for part in text.split("\n\n")]


def test_live_mistrals_own_sentencepiece_models_give_our_ids() -> None:
    pytest.importorskip("gguf", reason="the script of the fixtures needs gguf")
    sentencepiece = pytest.importorskip("sentencepiece", reason="the oracle needs sentencepiece")
    from tests.conformance.make_gguf_fixtures import PIECES

    models = sorted(mistral_folder().glob("*.model.v*"))
    assert models
    for path in models:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        check_sentencepiece(model, (*TEXTS, *CORPUS, *PIECES, *own_texts()))


def test_live_mistrals_tekken_gives_tiktokens_ids() -> None:
    tiktoken = pytest.importorskip("tiktoken", reason="the live oracle needs tiktoken")
    from tests.conformance.tekken import Tekken

    tekken = Tekken(mistral_folder() / "tekken_240911.json")
    tokenizer = open_vocabulary(tekken.metadata())
    encoding = tiktoken.Encoding(
        "tekken", pat_str=tekken.pattern, mergeable_ranks=tekken.ranks, special_tokens={}
    )
    for text in (*TEXTS, *CORPUS, *own_texts()):
        theirs = encoding.encode(text, disallowed_special=())
        assert tokenizer.encode(text) == [index + tekken.n_special for index in theirs]
