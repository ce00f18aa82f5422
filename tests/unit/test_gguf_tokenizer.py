"""Tokenizers made from GGUF metadata give the ids of the tokenizers that the metadata came from."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from py_engine.errors import (
    MissingFileError,
    ModelFileFormatError,
    UnsupportedTokenizerFilesError,
)
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from py_engine.weights.gguf import read_gguf
from py_engine.weights.gguf_pre_tokenizers import PRE_TOKENIZERS, UNSTATED
from py_engine.weights.gguf_source import GgufTokenizerSource
from py_engine.weights.gguf_tokenizer import gguf_tokenizer_config, gguf_tokenizer_json
from py_engine.weights.gguf_vocabulary import UNUSED, USER_DEFINED, read_vocabulary
from tests.support.gguf_file import gguf_bytes
from tests.support.gguf_tokenizer import SHAPES, metadata_of, tokenizer_metadata
from tests.support.memory_source import MemorySource
from tests.support.tokenizer_files import CORPUS, TEXTS, tokenizer_json
from tests.support.wordpiece import train_wordpiece


def open_text(text: str) -> Tokenizer:
    return asyncio.run(tokenizer_from_json(text))


def rebuilt(shape: str, **changes: Any) -> Tokenizer:
    metadata = tokenizer_metadata(shape)
    metadata |= {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    return open_text(gguf_tokenizer_json(metadata, "m.gguf"))


@pytest.mark.parametrize("shape", SHAPES)
def test_ids_and_texts_equal_those_of_the_original(shape: str) -> None:
    ours, theirs = rebuilt(shape), open_text(tokenizer_json(shape))
    for text in (*TEXTS, *CORPUS, "<think>so</think><s>", " <think> so <|im_end|>\n x"):
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        assert ours.decode(ids, False) == theirs.decode(ids, False)
        assert ours.decode(ids) == theirs.decode(ids)
    assert (ours.special_ids, ours.added_ids) == (theirs.special_ids, theirs.added_ids)
    assert ours.vocab_size == theirs.vocab_size


@pytest.mark.parametrize("shape", SHAPES)
def test_through_a_file_nothing_changes(shape: str) -> None:
    metadata = tokenizer_metadata(shape)
    source = MemorySource({"m.gguf": gguf_bytes(metadata)})
    file = asyncio.run(read_gguf(source, "m.gguf"))
    virtual = GgufTokenizerSource(source, file)
    text = asyncio.run(virtual.read_text("tokenizer.json"))
    assert json.loads(text) == json.loads(gguf_tokenizer_json(metadata, "m.gguf"))
    assert asyncio.run(virtual.size("tokenizer.json")) == len(text.encode())
    assert set(asyncio.run(virtual.list_files())) == {"tokenizer.json", "tokenizer_config.json"}
    with pytest.raises(MissingFileError, match=r"has no chat_template\.jinja"):
        asyncio.run(virtual.read_text("chat_template.jinja"))
    with pytest.raises(MissingFileError, match="one file with everything in it"):
        asyncio.run(virtual.read_bytes("tokenizer.json"))


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_pre_tokenizer_can_be_loaded_and_loses_nothing(name: str) -> None:
    tokenizer = rebuilt("gpt2", pre=name)
    text = "It's 12345 o'clock: Grüße\r\n\n日本語\t  x+=1 //y\u0301"
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("y\u0301", "\u00fd") or (
        not PRE_TOKENIZERS[name].nfc and tokenizer.decode(tokenizer.encode(text)) == text
    )


def pieces(name: str, text: str) -> list[str]:
    """Return what a text is cut into before merging."""
    from tokenizers import NormalizedString, PreTokenizedString, Tokenizer

    metadata = tokenizer_metadata("gpt2") | {"tokenizer.ggml.pre": name}
    data = json.loads(gguf_tokenizer_json(metadata, "m.gguf"))
    data["pre_tokenizer"]["pretokenizers"].pop()
    splitter = Tokenizer.from_str(json.dumps(data)).pre_tokenizer
    cut = PreTokenizedString(str(NormalizedString(text)))
    splitter.pre_tokenize(cut)
    return [piece for piece, _, _ in cut.get_splits("original", "char")]


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("gpt-2", ["I", "'m", " HERE", "'", "S", " 123456", "...", "\n\n", " aB"]),
        ("llama-bpe", ["I", "'m", " HERE", "'S", " ", "123", "456", "...\n\n", " aB"]),
        ("qwen2", ["I", "'m", " HERE", "'S", " ", *"123456", "...\n\n", " aB"]),
        ("smollm", ["I", "'m", " HERE", "'", "S", " ", *"123456", "...", "\n\n", " aB"]),
        ("tekken", ["I", "'m", " HERE", "'S", " ", *"123456", "...\n\n", " a", "B"]),
        ("gpt-4o", ["I'm", " HERE'S", " ", "123", "456", "...\n\n", " a", "B"]),
        ("deepseek-v3", ["I", "'m", " HERE", "'S", " ", "123", "456", "...\n\n", " aB"]),
    ],
)
def test_pre_tokenizers_cut_as_their_models_do(name: str, cut: list[str]) -> None:
    assert pieces(name, "I'm HERE'S 123456...\n\n aB") == cut


@pytest.mark.parametrize("lowercase", [True, False])
def test_berts_words_and_special_tokens(lowercase: bool) -> None:
    data = json.loads(train_wordpiece(400, lowercase=lowercase))
    theirs = open_text(json.dumps(data))
    ours = open_text(gguf_tokenizer_json(metadata_of(data, "bert"), "m.gguf"))
    for text in (*TEXTS, *CORPUS):
        assert ours.encode(text) == theirs.encode(text)
    assert ours.template == theirs.template
    assert (
        json.loads(gguf_tokenizer_json(metadata_of(data, "bert"), "m.gguf"))["normalizer"]
        == (data["normalizer"])
    )


def test_an_unstated_pre_tokenizer_is_the_architectures() -> None:
    for architecture, name in UNSTATED.items():
        metadata = tokenizer_metadata("gpt2") | {"general.architecture": architecture}
        del metadata["tokenizer.ggml.pre"]
        data = json.loads(gguf_tokenizer_json(metadata, "m.gguf"))
        assert data["pre_tokenizer"] == PRE_TOKENIZERS[name].pre_tokenizer_json()


def test_an_embedded_tokenizer_json_is_taken_as_it_is() -> None:
    metadata = {"tokenizer.huggingface.json": tokenizer_json("bert")}
    assert gguf_tokenizer_json(metadata, "m.gguf") == tokenizer_json("bert")


def test_padding_of_the_vocabulary_is_no_token() -> None:
    metadata = tokenizer_metadata("qwen2")
    n = len(metadata["tokenizer.ggml.tokens"])
    metadata["tokenizer.ggml.tokens"] += [f"[PAD{n}]", "<|last|>"]
    metadata["tokenizer.ggml.token_type"] += [UNUSED, 3]
    tokenizer = open_text(gguf_tokenizer_json(metadata, "m.gguf"))
    assert tokenizer.token(n) is None
    assert tokenizer.token_to_id("<|last|>") == n + 1
    assert n + 1 in tokenizer.special_ids


def test_spaces_of_added_tokens_of_sentencepiece_are_spaces() -> None:
    metadata = tokenizer_metadata("gemma")
    n = len(metadata["tokenizer.ggml.tokens"])
    metadata["tokenizer.ggml.tokens"].append("▁▁▁")
    metadata["tokenizer.ggml.token_type"].append(USER_DEFINED)
    metadata["tokenizer.ggml.scores"].append(0.0)
    tokenizer = open_text(gguf_tokenizer_json(metadata, "m.gguf"))
    ids = tokenizer.encode("a   b")
    assert n in ids
    assert tokenizer.decode(ids) == "a   b"


def test_spaces_after_phi_3s_special_tokens_are_dropped() -> None:
    metadata = tokenizer_metadata("llama2") | {"general.architecture": "phi3"}
    tokenizer = open_text(gguf_tokenizer_json(metadata, "m.gguf"))
    assert tokenizer.encode("</s>\n\n a") == tokenizer.encode("</s>a")
    assert tokenizer.encode("<s>\na") != tokenizer.encode("<s>a")
    llama = open_text(gguf_tokenizer_json(tokenizer_metadata("llama2"), "m.gguf"))
    assert llama.encode("</s>\na") != llama.encode("</s>a")


def test_tokens_around_a_text_follow_the_flags() -> None:
    spm = rebuilt("llama2")
    assert spm.template.around([7]) == [spm.token_to_id("<s>"), 7]
    spm = rebuilt("llama2", add_bos_token=False, add_eos_token=True)
    assert spm.template.around([7]) == [7, spm.token_to_id("</s>")]
    assert rebuilt("qwen2").template.around([7]) == [7]
    bpe = rebuilt("qwen2", bos_token_id=0, add_bos_token=True)
    assert bpe.template.around([7]) == [0, 7]


def test_templates_and_special_tokens_reach_tokenizer_config() -> None:
    metadata = tokenizer_metadata("qwen2") | {"tokenizer.chat_template": "{{ 1 }}"}
    assert gguf_tokenizer_config(metadata, "m.gguf") == {
        "eos_token": "<|im_end|>",
        "chat_template": "{{ 1 }}",
    }
    metadata |= {
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template.tool_use": "{{ 2 }}",
    }
    assert gguf_tokenizer_config(metadata, "m.gguf")["chat_template"] == [
        {"name": "default", "template": "{{ 1 }}"},
        {"name": "tool_use", "template": "{{ 2 }}"},
    ]
    config = gguf_tokenizer_config(tokenizer_metadata("llama2"), "m.gguf")
    assert config == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def test_replies_end_with_every_known_end() -> None:
    vocabulary = read_vocabulary(tokenizer_metadata("qwen2"), "m.gguf")
    texts = [vocabulary.tokens[index] for index in vocabulary.end_ids]
    assert texts == ["<|im_end|>", "<|endoftext|>"]


def test_old_files_know_special_tokens_by_their_ids() -> None:
    metadata = tokenizer_metadata("qwen2")
    del metadata["tokenizer.ggml.token_type"]
    tokenizer = open_text(gguf_tokenizer_json(metadata, "m.gguf"))
    assert tokenizer.special_ids == {metadata["tokenizer.ggml.eos_token_id"]}


@pytest.mark.parametrize(
    ("shape", "changes", "error", "named"),
    [
        ("qwen2", {"model": "t5"}, UnsupportedTokenizerFilesError, "'t5'.*safetensors"),
        ("qwen2", {"pre": "novel"}, UnsupportedTokenizerFilesError, "'novel', a pre-tokenizer"),
        ("qwen2", {"tokens": []}, ModelFileFormatError, "tokenizer.ggml.tokens"),
        ("qwen2", {"tokens": [1]}, ModelFileFormatError, "tokenizer.ggml.tokens"),
        ("qwen2", {"token_type": [1]}, ModelFileFormatError, "token_type"),
        ("qwen2", {"merges": ["a b c d"]}, ModelFileFormatError, "merges is .*unlike 'a b c d'"),
        ("qwen2", {"merges": ["ab"]}, ModelFileFormatError, "merges"),
        ("qwen2", {"eos_token_id": 10**6}, ModelFileFormatError, "eos_token_id"),
        ("qwen2", {"merges": None}, ModelFileFormatError, "merges is missing"),
        ("llama2", {"scores": None}, ModelFileFormatError, "scores is missing"),
        ("llama2", {"scores": [0.0]}, ModelFileFormatError, "scores"),
        ("llama2", {"add_space_prefix": 3}, ModelFileFormatError, "add_space_prefix"),
    ],
)
def test_wrong_metadata_is_named(
    shape: str, changes: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        rebuilt(shape, **changes)
