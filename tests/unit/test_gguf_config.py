"""Configurations out of GGUF metadata, for models that exist."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from py_engine.chat_config import ChatConfig
from py_engine.errors import (
    MLCError,
    ModelFileFormatError,
    UnknownArchitectureError,
    UnsupportedModelConfigError,
)
from py_engine.models.registry import decoder_spec, encoder_spec
from py_engine.tokenizer import tokenizer_from_json
from py_engine.weights.gguf import GgufFile, read_gguf
from py_engine.weights.gguf_config import gguf_config_json
from py_engine.weights.gguf_tokenizer import gguf_tokenizer_config, gguf_tokenizer_json
from py_engine.weights.records import TensorRecord
from tests.support.gguf_file import FileTensor, gguf_bytes
from tests.support.gguf_tokenizer import tokenizer_metadata
from tests.support.memory_source import MemorySource

LLAMA_32: dict[str, Any] = {
    "context_length": 131072,
    "embedding_length": 2048,
    "block_count": 16,
    "feed_forward_length": 8192,
    "attention.head_count": 32,
    "attention.head_count_kv": 8,
    "attention.key_length": 64,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 500000.0,
    "rope.dimension_count": 64,
}


def file_of(
    architecture: str,
    fields: Mapping[str, Any],
    tensors: tuple[str, ...] = (),
    rope_factors: Mapping[str, tuple[float, ...]] | None = None,
) -> GgufFile:
    metadata = tokenizer_metadata("qwen2") | {"general.architecture": architecture}
    metadata |= {f"{architecture}.{name}": value for name, value in fields.items()}
    shapes = {"token_embd.weight": (512, 64), **dict.fromkeys(tensors, (64,))}
    records = {
        name: TensorRecord(name, shape, "F32", "m.gguf", 0, 0) for name, shape in shapes.items()
    }
    return GgufFile("m.gguf", {"m.gguf": 1}, metadata, records, rope_factors or {})


def model_config(*arguments: Any, **options: Any) -> dict[str, Any]:
    config = gguf_config_json(file_of(*arguments, **options))["model_config"]
    assert isinstance(config, dict)
    return config


def changed(**fields: Any) -> dict[str, Any]:
    return LLAMA_32 | {name.replace("__", "."): value for name, value in fields.items()}


def test_sizes_and_lengths_reach_the_chat_configuration() -> None:
    data = gguf_config_json(file_of("llama", LLAMA_32, ("output.weight",)))
    config = ChatConfig.from_json(data)
    assert (config.model_type, config.quantization) == ("llama", "gguf")
    assert (config.vocab_size, config.context_window_size) == (512, 131072)
    assert config.tokenizer_info.token_postproc_method == "byte_level"
    tokens = tokenizer_metadata("qwen2")["tokenizer.ggml.tokens"]
    assert [tokens[index] for index in config.eos_token_ids] == ["<|im_end|>", "<|endoftext|>"]
    assert config.model_config == {
        "model_type": "llama",
        "vocab_size": 512,
        "tie_word_embeddings": False,
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_parameters": {
            "rope_theta": 500000.0,
            "partial_rotary_factor": 1.0,
            "rope_type": "default",
        },
    }


def test_sampling_of_the_file_is_the_default() -> None:
    file = file_of("llama", LLAMA_32)
    metadata = {**file.metadata, "general.sampling.temp": 0.6, "general.sampling.top_p": 0.95}
    data = gguf_config_json(GgufFile("m.gguf", {}, metadata, file.tensors, {}))
    assert (data["temperature"], data["top_p"]) == (0.6, 0.95)


def test_a_model_without_an_output_table_is_tied_and_biases_are_seen() -> None:
    assert model_config("llama", LLAMA_32)["tie_word_embeddings"]
    biased = model_config("llama", LLAMA_32, ("blk.0.attn_q.bias",))
    assert (biased["attention_bias"], biased["mlp_bias"]) == (True, False)


def test_factors_of_llama_3_are_applied_as_they_are() -> None:
    factors = tuple(1.0 + 31 * i / 31 for i in range(32))
    rope = model_config("llama", LLAMA_32, rope_factors={"rope_freqs.weight": factors})
    assert rope["rope_parameters"] == {
        "rope_theta": 500000.0,
        "partial_rotary_factor": 1.0,
        "rope_type": "longrope",
        "long_factor": list(factors),
        "short_factor": list(factors),
        "original_max_position_embeddings": 131072,
        "attention_factor": 1.0,
    }


def test_longrope_and_the_part_that_is_rotated() -> None:
    fields = changed(
        rope__dimension_count=48,
        rope__scaling__original_context_length=4096,
        rope__scaling__attn_factor=1.19,
        attention__sliding_window=0,
    )
    factors = {
        "rope_factors_long.weight": (2.0,) * 24,
        "rope_factors_short.weight": (1.0,) * 24,
    }
    config = model_config("phi3", fields, rope_factors=factors)
    assert "sliding_window" not in config
    assert config["rope_parameters"] == {
        "rope_theta": 500000.0,
        "partial_rotary_factor": 0.75,
        "rope_type": "longrope",
        "long_factor": [2.0] * 24,
        "short_factor": [1.0] * 24,
        "original_max_position_embeddings": 4096,
        "attention_factor": 1.19,
    }
    assert model_config("phi3", changed(attention__sliding_window=2047))["sliding_window"] == 2047


def test_linear_and_yarn_scaling() -> None:
    linear = changed(rope__scaling__type="linear", rope__scaling__factor=8.0)
    rope = model_config("llama", linear)["rope_parameters"]
    assert (rope["rope_type"], rope["factor"]) == ("linear", 8.0)
    yarn = changed(
        rope__scaling__type="yarn",
        rope__scaling__factor=16.0,
        rope__scaling__original_context_length=16384,
        rope__scaling__yarn_beta_fast=32.0,
        rope__scaling__yarn_log_multiplier=1.0,
        attention__temperature_scale=0.1,
    )
    config = model_config("mistral3", yarn)
    assert config["model_type"] == "ministral3"
    assert config["rope_parameters"] == {
        "rope_theta": 500000.0,
        "partial_rotary_factor": 1.0,
        "rope_type": "yarn",
        "factor": 16.0,
        "original_max_position_embeddings": 16384,
        "beta_fast": 32.0,
        "llama_4_scaling_beta": 0.1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }


def test_gemma_2_has_the_caps_and_windows_that_old_files_do_not_state() -> None:
    config = model_config("gemma2", changed(block_count=4))
    assert (config["attn_logit_softcapping"], config["final_logit_softcapping"]) == (50.0, 30.0)
    assert config["sliding_window"] == 4096
    assert config["layer_types"] == ["sliding_attention", "full_attention"] * 2
    assert config["query_pre_attn_scalar"] == 64
    # Gemma 2 27B: 4608 / 32 instead of its heads of 128.
    wide = changed(block_count=46, embedding_length=4608, attention__key_length=128)
    assert model_config("gemma2", wide)["query_pre_attn_scalar"] == 144
    assert model_config("gemma2", wide | {"attention.scale": 0.25})["query_pre_attn_scalar"] == 16


def test_gemma_3_has_two_ropes() -> None:
    fields = changed(
        block_count=7,
        rope__freq_base=1e6,
        rope__scaling__type="linear",
        rope__scaling__factor=8.0,
        attention__sliding_window=1024,
    )
    config = model_config("gemma3", fields)
    assert config["model_type"] == "gemma3_text"
    assert config["layer_types"] == [
        *["sliding_attention"] * 5,
        "full_attention",
        "sliding_attention",
    ]
    whole = {"partial_rotary_factor": 1.0}
    assert config["rope_parameters"] == {
        "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0, **whole},
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default", **whole},
    }
    assert "final_logit_softcapping" not in config
    stated = changed(block_count=3, attention__sliding_window_pattern=[False, True, False])
    assert model_config("gemma3", stated)["layer_types"] == [
        "full_attention",
        "sliding_attention",
        "full_attention",
    ]
    stated = changed(block_count=3, attention__sliding_window_pattern=3)
    assert model_config("gemma3", stated)["layer_types"][1:] == [
        "sliding_attention",
        "full_attention",
    ]


@pytest.mark.parametrize(
    ("architecture", "tensors", "expected"),
    [
        ("gpt2", (), {"n_embd": 2048, "n_layer": 16, "n_head": 32, "n_inner": 8192}),
        ("gpt2", (), {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-6}),
        ("gptneox", (), {"use_parallel_residual": True, "attention_bias": False}),
        ("gptneox", ("blk.0.attn_qkv.bias",), {"attention_bias": True, "layer_norm_eps": 1e-6}),
        ("stablelm", ("blk.0.attn_q.bias",), {"use_qkv_bias": True, "qk_layernorm": False}),
        ("stablelm", ("blk.0.attn_q_norm.weight",), {"qk_layernorm": True}),
        ("phi2", (), {"model_type": "phi", "hidden_act": "gelu_new"}),
        ("gemma", (), {"hidden_activation": "gelu_pytorch_tanh"}),
        ("qwen3", (), {"use_sliding_window": False}),
        ("olmo2", (), {"model_type": "olmo2"}),
    ],
)
def test_what_an_architecture_implies(
    architecture: str, tensors: tuple[str, ...], expected: dict[str, Any]
) -> None:
    config = model_config(architecture, changed(attention__layer_norm_epsilon=1e-6), tensors)
    assert expected.items() <= config.items()
    assert ("rope_parameters" in config) == (architecture != "gpt2")


def test_an_embedding_model_says_how_it_pools() -> None:
    fields = changed(context_length=512, attention__layer_norm_epsilon=1e-12, pooling_type=2)
    data = gguf_config_json(file_of("bert", fields, ("token_types.weight",)))
    assert (data["model_type"], data["model_task"]) == ("bert", "embedding")
    assert data["prefill_chunk_size"] == data["context_window_size"] == 512
    assert data["embedding_metadata"] == {
        "model_type": "encoder",
        "pooling_strategy": "cls",
        "normalize": True,
    }
    assert data["model_config"]["type_vocab_size"] == 64
    assert data["model_config"]["layer_norm_eps"] == 1e-12
    assert "rope_parameters" not in data["model_config"]
    with pytest.raises(UnsupportedModelConfigError, match="pooling_type is 4, but only 1"):
        gguf_config_json(file_of("bert", changed(pooling_type=4)))


def test_numbers_of_each_layer_may_be_given_if_they_are_all_the_same() -> None:
    config = model_config("llama", changed(attention__head_count_kv=[8] * 16))
    assert config["num_key_value_heads"] == 8


def test_an_adapter_is_no_model() -> None:
    file = file_of("llama", LLAMA_32)
    metadata = {**file.metadata, "general.type": "adapter"}
    with pytest.raises(UnsupportedModelConfigError, match="'adapter', which is no model by itself"):
        gguf_config_json(GgufFile("m.gguf", {}, metadata, file.tensors, {}))


@pytest.mark.parametrize(
    ("architecture", "fields", "error", "named"),
    [
        ("mamba", LLAMA_32, UnknownArchitectureError, "'mamba'.*Known are bert, .*phi3"),
        ("llama", changed(expert_count=8), UnsupportedModelConfigError, "expert_count is 8"),
        ("llama", changed(context_length=None), ModelFileFormatError, "context_length"),
        ("llama", changed(embedding_length="x"), ModelFileFormatError, "embedding_length"),
        ("llama", changed(rope__dimension_count=65), ModelFileFormatError, "dimension_count"),
        (
            "llama",
            changed(rope__scaling__type="mystery", rope__scaling__factor=2.0),
            UnsupportedModelConfigError,
            "'mystery', but only none, linear",
        ),
    ],
)
def test_what_cannot_be_run_is_named(
    architecture: str, fields: dict[str, Any], error: type[MLCError], named: str
) -> None:
    with pytest.raises(error, match=rf"m\.gguf.*{named}"):
        gguf_config_json(file_of(architecture, fields))


@pytest.mark.parametrize("shape", ["qwen2", "llama2", "bert"])
def test_damaged_metadata_ends_in_our_error_or_in_a_configuration(shape: str) -> None:
    """70 mutations each, of lengths and types too, on the way to a tokenizer and a spec."""
    architecture = "bert" if shape == "bert" else "gemma3"
    fields = changed(context_length=512, attention__layer_norm_epsilon=1e-6)
    metadata = tokenizer_metadata(shape) | {"general.architecture": architecture}
    metadata |= {f"{architecture}.{name}": value for name, value in fields.items()}
    whole = gguf_bytes(metadata, {"token_embd.weight": FileTensor((512, 1), "F32", bytes(2048))})
    end, sizes = len(whole) - 2048, whole.index(b"general.architecture")
    chance = random.Random(shape)
    outcomes = Counter[str]()
    for _ in range(70):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3))):
            # Most of a file is tokens: half of the damage is to what else there is.
            at = chance.randrange(chance.choice((4, sizes)), end)
            damaged[at] = chance.choice((0, 1, 7, 255, chance.randrange(256)))
        try:
            file = asyncio.run(read_gguf(MemorySource({"m.gguf": bytes(damaged)}), "m.gguf"))
            config = ChatConfig.from_json(gguf_config_json(file))
            asyncio.run(tokenizer_from_json(gguf_tokenizer_json(file.metadata, "m.gguf"))).destroy()
            gguf_tokenizer_config(file.metadata, "m.gguf")
            (encoder_spec if architecture == "bert" else decoder_spec)(config)
            outcomes["loaded"] += 1
        except MLCError as error:
            outcomes[type(error).__name__] += 1
    assert outcomes["loaded"] > 5
    assert outcomes["ModelFileFormatError"] > 5
