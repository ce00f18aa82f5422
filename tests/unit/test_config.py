"""Configuration: reading, merging, and errors that name source, field, value and remedy."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from py_engine import config as config_module
from py_engine.config import (
    AppConfig,
    ChatConfig,
    HuggingFaceConfig,
    InitProgressReport,
    MLCEngineConfig,
    ModelRecord,
    ModelType,
    prebuilt_app_config,
)
from py_engine.errors import (
    AttentionSinkSizeError,
    ConfigurationFieldError,
    MLCError,
    ModelFileFormatError,
    ModelNotFoundError,
    WindowSizeConfigurationError,
    WindowSizeSpecificationError,
)
from py_engine.model_address import parse_model_address

CONFIG = {
    "model_type": "llama",
    "quantization": "q4f16_1",
    "model_config": {"vocab_size": 500, "hidden_size": 64},
    "vocab_size": 504,
    "context_window_size": 4096,
    "sliding_window_size": -1,
    "temperature": 0.6,
    "top_p": 0.9,
    "conv_template": {"name": "chatml", "seps": ["\n"]},
}


def chat_config(
    chat_opts: dict[str, Any] | None = None,
    overrides: dict[str, Any] | None = None,
    **changes: Any,
) -> ChatConfig:
    return ChatConfig.from_json({**CONFIG, **changes}, overrides=overrides, chat_opts=chat_opts)


def test_chat_config_fields_and_defaults() -> None:
    config = chat_config()
    assert config.model_type == "llama"
    assert config.model_config == {"vocab_size": 500, "hidden_size": 64}
    assert config.vocab_size == 504
    assert (config.context_window_size, config.sliding_window_size) == (4096, -1)
    assert (config.temperature, config.top_p) == (0.6, 0.9)
    assert (config.presence_penalty, config.frequency_penalty) == (0.0, 0.0)
    assert config.repetition_penalty == 1.0
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_ids) == (0, 1, (2,))
    assert config.tokenizer_files == ()
    assert config.overridden == frozenset()
    assert config.data["top_p"] == 0.9


def test_chat_config_reads_an_array_of_eos() -> None:
    assert chat_config(eos_token_id=[128001, 128009]).eos_token_ids == (128001, 128009)


def test_chat_config_falls_back_to_model_config() -> None:
    model = {"vocab_size": 500, "context_window_size": 1024, "prefill_chunk_size": 128}
    config = chat_config(model_config=model, vocab_size=None, context_window_size=None)
    assert config.vocab_size == 500
    assert config.context_window_size == 1024
    assert config.prefill_chunk_size == 128


def test_tokenizer_info_and_its_older_spelling() -> None:
    info = {"token_postproc_method": "byte_level", "prepend_space_in_encode": True}
    assert chat_config(tokenizer_info=info).tokenizer_info.prepend_space_in_encode
    assert chat_config(tokenizer_info=info).tokenizer_info.token_postproc_method == "byte_level"
    older = chat_config(token_table_postproc_method="byte-level").tokenizer_info
    assert older.token_postproc_method == "byte_level"


def test_merge_is_shallow_and_chat_opts_win() -> None:
    config = chat_config(
        overrides={"context_window_size": 1024, "top_p": 0.5},
        chat_opts={"top_p": 0.7, "conv_template": {"name": "mine"}, "temperature": None},
    )
    assert config.context_window_size == 1024
    assert config.top_p == 0.7
    assert config.conv_template == {"name": "mine"}
    assert config.temperature == 0.6
    assert config.overridden == {"context_window_size", "top_p", "conv_template"}


def test_exactly_one_window_must_be_positive() -> None:
    with pytest.raises(WindowSizeConfigurationError, match=r"4096 and.*2048.*Set the other to -1"):
        chat_config(sliding_window_size=2048)
    with pytest.raises(WindowSizeSpecificationError, match=r"Set context_window_size in chat_opts"):
        chat_config(context_window_size=-1)


SLIDING = {"context_window_size": -1, "sliding_window_size": 4096, "attention_sink_size": 4}


def test_sliding_window_of_the_file() -> None:
    config = chat_config(**SLIDING)
    assert (config.context_window_size, config.sliding_window_size) == (-1, 4096)
    assert config.attention_sink_size == 4


def test_chat_opts_switch_the_kind_of_window() -> None:
    off = {"context_window_size": 2048, "sliding_window_size": -1}
    whole = chat_config(chat_opts=off, **SLIDING)
    assert (whole.context_window_size, whole.sliding_window_size) == (2048, -1)
    on = {"context_window_size": -1, "sliding_window_size": 1024, "attention_sink_size": 0}
    sliding = chat_config(chat_opts=on)
    assert (sliding.context_window_size, sliding.sliding_window_size) == (-1, 1024)
    with pytest.raises(WindowSizeConfigurationError, match=r"is 2048 and.*is 4096"):
        chat_config(chat_opts={"context_window_size": 2048}, **SLIDING)


@pytest.mark.parametrize("sinks", [None, -1, 4096, 5000])
def test_number_of_sinks_beside_a_sliding_window(sinks: int | None) -> None:
    with pytest.raises(AttentionSinkSizeError, match=r"from 0 to 4095.*Set it in chat_opts"):
        chat_config(**{**SLIDING, "attention_sink_size": sinks})


def test_a_context_window_is_lowered_freely_and_raised_to_the_models_limit() -> None:
    model = {"vocab_size": 500, "max_position_embeddings": 8192}
    for size in (1, 100, 4096, 8192):
        config = chat_config(chat_opts={"context_window_size": size}, model_config=model)
        assert config.context_window_size == size


@pytest.mark.parametrize(
    ("stated", "limit"),
    [
        ({}, 4096),
        ({"context_window_size": 1024}, 1024),
        ({"model_config": {"vocab_size": 500, "context_window_size": 6000}}, 6000),
        ({"model_config": {"vocab_size": 500, "max_position_embeddings": 8192}}, 8192),
        (SLIDING, 4096),
    ],
)
@pytest.mark.parametrize("name", ["context_window_size", "sliding_window_size"])
@pytest.mark.parametrize("source", ["chat_opts", "overrides"])
def test_a_window_beyond_the_models_limit_is_refused(
    stated: dict[str, Any], limit: int, name: str, source: str
) -> None:
    windows = {"context_window_size": -1, "sliding_window_size": -1, "attention_sink_size": 0}
    longer = {source: {**windows, name: limit + 1}}
    wanted = rf"^{source}: {name} is {limit + 1}, .*at most {limit} tokens .*Set it to {limit} or"
    with pytest.raises(ConfigurationFieldError, match=wanted):
        chat_config(**longer, **stated)
    assert getattr(chat_config(**{source: {**windows, name: limit}}, **stated), name) == limit


def test_a_model_that_states_no_limit_takes_any_window() -> None:
    config = chat_config(chat_opts={"context_window_size": 1 << 17}, context_window_size=-1)
    assert config.context_window_size == 1 << 17


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": None},
            r"config\.json: model_type is missing; it must be a string",
        ),
        ({"model_type": 3}, r"model_type is 3, but must be a string"),
        ({"model_config": None}, r"model_config is missing; it must be an object"),
        ({"model_config": [1]}, r"model_config is \[1\], but must be a JSON object"),
        ({"temperature": "warm"}, r"temperature is 'warm', but must be a number of at least 0"),
        ({"temperature": -1}, r"temperature is -1"),
        ({"temperature": float("nan")}, r"temperature is nan"),
        ({"temperature": True}, r"temperature is True"),
        ({"top_p": 0}, r"top_p is 0, but must be a number of at most 1 above 0"),
        ({"vocab_size": 0}, r"vocab_size is 0, but must be an integer of at least 1"),
        ({"vocab_size": 1.5}, r"vocab_size is 1\.5"),
        ({"presence_penalty": 3}, r"presence_penalty is 3, but must be a number from -2 to 2"),
        ({"tokenizer_files": "x"}, r"tokenizer_files is 'x', but must be an array of strings"),
        (
            {"tokenizer_info": {"strip_space_in_decode": 1}},
            r"tokenizer_info\.strip_space_in_decode",
        ),
        ({"conv_template": 7}, r"conv_template is 7"),
        ({"eos_token_id": ["a"]}, r"eos_token_id is \['a'\]"),
    ],
)
def test_bad_field_of_the_file_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileFormatError, match=message):
        chat_config(**changes)


def test_bad_field_of_an_override_is_named() -> None:
    with pytest.raises(ConfigurationFieldError, match=r"^chat_opts: top_p is 3"):
        chat_config(chat_opts={"top_p": 3})
    with pytest.raises(ConfigurationFieldError, match=r"^overrides: tokenizer_info\.strip_space"):
        chat_config(overrides={"tokenizer_info": {"strip_space_in_decode": 1}})


def test_file_that_is_no_object() -> None:
    with pytest.raises(ModelFileFormatError, match=r"my\.json is \[\], but must be a JSON object"):
        ChatConfig.from_json([], file="my.json")


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(MLCError) as caught:
        chat_config(model_type=["x"] * 1000)
    assert len(str(caught.value)) < 200


SRI = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
RECORD = {
    "model": "https://huggingface.co/mlc-ai/X",
    "model_id": "X",
    "model_lib": "https://example.org/x.wasm",
    "model_manifest": "mlc-model-manifest.json",
    "overrides": {"context_window_size": 1024},
    "required_features": ["shader-f16"],
    "vram_required_MB": 12.5,
    "buffer_size_required_bytes": 1000,
    "low_resource_required": True,
    "model_type": 1,
    "architecture": "bert",
    "integrity": {"config": SRI, "tokenizer": {"tokenizer.json": SRI}, "onFailure": "warn"},
    "group": "mine",
}


def test_config_round_trip_keeps_all_fields() -> None:
    app = {
        "model_list": [RECORD],
        "cacheBackend": "cache",
        "gpuMemoryLimitMB": 4000.0,
        "opfsAccessMode": "sync",
        "huggingface": {"endpoint": "https://mirror.org", "token": "hf_secret"},
        "useIndexedDBCache": False,
    }
    config = AppConfig.from_dict(app)
    record = config.model_list[0]
    assert record.required_features == ("shader-f16",)
    assert record.model_type is ModelType.embedding
    assert record.integrity is not None
    assert record.integrity.onFailure == "warn"
    assert record.extra == {"group": "mine"}
    assert config.huggingface == HuggingFaceConfig("https://mirror.org", token="hf_secret")
    assert json.loads(json.dumps(config.to_dict())) == app | {
        "model_list": [
            RECORD | {"integrity": {"onFailure": "warn"} | RECORD["integrity"]}  # type: ignore[operator]
        ]
    }
    assert "hf_secret" not in repr(config)


def test_record_of_two_fields() -> None:
    data = {"model": "m", "model_id": "i"}
    assert ModelRecord.from_dict(data) == ModelRecord("m", "i")
    assert ModelRecord("m", "i").to_dict() == data
    assert ModelRecord.from_dict(data | {"low_resource_required": False}).to_dict() == {
        **data,
        "low_resource_required": False,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ""}, r"model is '', but must be a text that is not empty"),
        ({"model_id": " "}, r"model_id is ' ', but must be a text that is not empty"),
        ({"model_type": 3}, r"model_type is 3, but must be one of 0 \(LLM\), 1 \(embedding\), 2"),
        ({"model_type": True}, r"model_type is True, but must be one of"),
        ({"model_lib": 3}, r"model_lib is 3, but must be a string"),
        ({"vram_required_MB": -1}, r"vram_required_MB is -1, but must be a number of at least 0"),
        ({"buffer_size_required_bytes": 0.5}, r"buffer_size_required_bytes is 0\.5, but must be"),
        ({"required_features": "shader-f16"}, r"required_features is 'shader-f16', but must be an"),
        ({"integrity": {"config": "md5-x"}}, r"integrity\.config is 'md5-x', but must be an SRI"),
        ({"integrity": {"files": {"a": "sha256-"}}}, r"integrity\.files\.a is 'sha256-', but"),
        (
            {"integrity": {"onFailure": "stop"}},
            r"integrity\.onFailure is 'stop', but must be \"err",
        ),
    ],
)
def test_bad_record_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationFieldError, match=rf"^ModelRecord: {message}"):
        ModelRecord.from_dict(RECORD | changes)


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (None, r"AppConfig is None, but must be a JSON object"),
        ({"model_list": 3}, r"AppConfig: model_list is 3, but must be an array of objects"),
        (
            {"gpuMemoryLimitMB": 0},
            "AppConfig: gpuMemoryLimitMB is 0",
        ),
        (
            {"cacheBackend": "disk"},
            r"AppConfig: cacheBackend is 'disk', but must be one of opfs, c",
        ),
        ({"opfsAccessMode": 1}, r"AppConfig: opfsAccessMode is 1, but must be one of async, sync"),
        (
            {"huggingface": {"endpoint": "x.org"}},
            r"AppConfig: huggingface\.endpoint is 'x\.org', b",
        ),
        (
            {"huggingface": {"token": 5}},
            r"AppConfig: huggingface\.token is 5, but must be a string",
        ),
        ({"huggingface": {"path_template": "{model}"}}, r"huggingface\.path_template is '{model}'"),
        (
            {"huggingface": {"path_template": "files"}},
            r"huggingface\.path_template is 'files', but",
        ),
        ({"model_list": [3]}, r"AppConfig: model_list\[0\] is 3"),
        ({"model_list": [{"model_id": "x"}]}, r"AppConfig: model_list\[0\]\.model is missing"),
    ],
)
def test_bad_app_config_is_named(app: Any, message: str) -> None:
    with pytest.raises(ConfigurationFieldError, match=message):
        AppConfig.from_dict(app)


def test_unknown_model_suggests_close_ids() -> None:
    wanted = r"'Llama-Storyteller-7M'.*Llama-Storyteller-7M-q4f16_1-MLC.*add a record"
    with pytest.raises(ModelNotFoundError, match=wanted):
        prebuilt_app_config.record("Llama-Storyteller-7M")
    with pytest.raises(ModelNotFoundError, match=r"0 records, such as none"):
        AppConfig([]).record("x")


def test_an_address_needs_no_record() -> None:
    for address in ("hf:owner/name@v1", "owner/name", "https://example.org/x.gguf", "local:mine"):
        assert AppConfig([]).record(address) == ModelRecord(address, address)


def test_a_config_without_a_list_offers_the_prebuilt_models() -> None:
    assert AppConfig().model_list is prebuilt_app_config.model_list
    config = AppConfig.from_dict({"cacheBackend": "indexeddb"})
    assert (config.cacheBackend, config.model_list) == ("indexeddb", AppConfig().model_list)


# webllm_map.md section 6: the records of npm @mlc-ai/web-llm 0.2.86 by architecture.
WEBLLM_RECORDS = {
    "llama": 47, "qwen2": 35, "phi3": 10, "qwen3": 10, "qwen3_5": 9, "gemma2": 8, "phi": 8,
    "mistral": 7, "ministral3": 6, "olmo2": 4, "stablelm": 4, "gpt_neox": 4, "gemma": 4, "bert": 4,
    "phi3_v": 2, "gemma4": 2, "gemma3_text": 1,
}  # fmt: skip


def test_prebuilt_list_has_our_model_and_all_of_webllms() -> None:
    own, *others = prebuilt_app_config.model_list
    assert own.model == "models/Llama-Storyteller-7M-q4f16_1-MLC/"
    assert Counter(record.architecture for record in others) == WEBLLM_RECORDS
    assert len({record.model_id for record in prebuilt_app_config.model_list}) == 1 + 165
    for record in others:
        folder = re.sub(r"-(1k|b\d+)$", "", record.model_id)  # the same weights under two ids
        assert record.model == f"https://huggingface.co/mlc-ai/{folder}"
        assert parse_model_address(record.model).place == f"mlc-ai/{folder}"
        assert record.vram_required_MB
        assert record.model_lib
    # Our kernels fall back where an adapter lacks f16, so that an f16 build needs no feature.
    assert all(record.required_features == () for record in others)


def test_prebuilt_overrides_are_webllms() -> None:
    contexts = Counter(
        r.overrides.get("context_window_size") for r in prebuilt_app_config.model_list
    )
    assert contexts == {4096: 125, 1024: 26, 2048: 10, None: 5}
    short = prebuilt_app_config.record("Llama-3-8B-Instruct-q4f16_1-MLC-1k")
    assert short.overrides == {"context_window_size": 1024}
    mistral = prebuilt_app_config.record("Mistral-7B-Instruct-v0.3-q4f16_1-MLC")
    assert mistral.overrides["sliding_window_size"] == -1
    encoder = prebuilt_app_config.record("snowflake-arctic-embed-s-q0f32-MLC-b4")
    assert (encoder.model_type, encoder.overrides) == (ModelType.embedding, {})


def test_prebuilt_list_is_read_when_it_is_first_used() -> None:
    assert config_module.prebuilt_app_config is prebuilt_app_config
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = config_module.no_such_name


def test_progress_report_travels_with_webllm_names() -> None:
    report = InitProgressReport(0.5, 1.25, "halfway", 10, 20, 5.0, 2.0)
    assert report.to_dict() == {
        "progress": 0.5,
        "timeElapsed": 1.25,
        "text": "halfway",
        "loadedBytes": 10,
        "totalBytes": 20,
        "bytesPerSecond": 5.0,
        "remainingSeconds": 2.0,
    }


def test_engine_config_defaults() -> None:
    assert MLCEngineConfig() == MLCEngineConfig(None, None, "WARN")
