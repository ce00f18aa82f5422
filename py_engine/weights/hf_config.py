"""Makes the content of `mlc-chat-config.json` from the files of a Hugging Face repository."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from py_engine.json_fields import JsonFields
from py_engine.weights.hf_files import HfFiles

DEFAULT_PREFILL_CHUNK_SIZE = 2048
_CHATML_END = "<|im_end|>"
_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx")
_SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {"vocab_size": 262208, "max_position_embeddings": 131072},
}
"""transformers' defaults that configurations of a `model_type` are known to leave away."""


def chat_config_json(files: HfFiles, quantization: str) -> dict[str, Any]:
    """Return the content of `mlc-chat-config.json` for a language model.

    `model_config` has all fields of `config.json`, and MLC's names beside them. The context window
    is the longest that the model is made for. Sampling defaults are those of
    `generation_config.json`, the conversation template is ChatML (a chat template of the tokenizer
    goes before it).
    Errors: ModelFileFormatError for a bad field.
    """
    config, generation = _with_defaults(files.config), files.generation
    context = _longest_context(config)
    special = {
        name: (generation if name in generation else config).value(name) for name in _SPECIAL_TOKENS
    }
    # No token at all, rather than the 2 that a configuration without this field stands for.
    eos = [] if special["eos_token_id"] is None else special["eos_token_id"]
    sizes = {
        "context_window_size": context,
        "prefill_chunk_size": min(DEFAULT_PREFILL_CHUNK_SIZE, context),
    }
    return {
        "version": "0.1.0",
        "model_type": config.string("model_type"),
        "quantization": quantization,
        "model_config": {**config.data, **_mlc_names(config), **sizes},
        "vocab_size": config.integer("vocab_size", minimum=1),
        **sizes,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "temperature": generation.number("temperature", 1.0, minimum=0),
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": generation.number("repetition_penalty", 1.0, above=0),
        "top_p": generation.number("top_p", 1.0, above=0, maximum=1),
        "tokenizer_files": list(files.tokenizer_files),
        "conv_template": _chatml(files.tokenizer_config, eos),
        **{name: value for name, value in special.items() if value is not None},
        "eos_token_id": eos,
    }


def tokenizer_info(tokenizer: JsonFields) -> dict[str, Any]:
    """Return how token strings become text, read off `tokenizer.json`, as other engines want it.

    Source: MLC-LLM's `Tokenizer::DetectTokenizerInfo`.
    """
    decoders = _steps(tokenizer, "decoder", "decoders")
    normalizers = _steps(tokenizer, "normalizer", "normalizers")
    kinds = {step.get("type") for step in decoders}
    method = "byte_level" if "ByteLevel" in kinds else "raw"
    return {
        "token_postproc_method": "byte_fallback" if "ByteFallback" in kinds else method,
        "prepend_space_in_encode": any(step.get("type") == "Prepend" for step in normalizers),
        "strip_space_in_decode": "Strip" in kinds,
    }


def _steps(tokenizer: JsonFields, name: str, members: str) -> list[Mapping[str, Any]]:
    step = tokenizer.object(name)
    return [child.data for child in step.objects(members)] if members in step else [step.data]


def _with_defaults(config: JsonFields) -> JsonFields:
    known = {name: value for name, value in config.data.items() if value is not None}
    defaults = _DEFAULTS.get(config.string("model_type"), {})
    return JsonFields({**config.data, **defaults, **known}, config.source)


def _longest_context(config: JsonFields) -> int:
    name = next((name for name in _CONTEXT_NAMES if name in config), _CONTEXT_NAMES[0])
    return config.integer(name, minimum=1)


def _mlc_names(config: JsonFields) -> dict[str, Any]:
    """Return the fields that MLC calls otherwise than Hugging Face."""
    rope = config.object("rope_parameters")
    found: dict[str, Any] = {"tensor_parallel_shards": 1, "pipeline_parallel_stages": 1}
    theta = config.value("rope_theta") or rope.value("rope_theta")
    if theta is not None:
        found["position_embedding_base"] = theta
    if "rope_type" in rope and rope.value("rope_type") != "default":
        found["rope_scaling"] = dict(rope.data)
    return found


def _chatml(tokenizer_config: JsonFields, eos: Any) -> dict[str, Any]:
    added = tokenizer_config.object("added_tokens_decoder")
    ends = [
        int(token_id)
        for token_id in added.data
        if token_id.isdecimal() and added.object(token_id).value("content") == _CHATML_END
    ]
    return {
        "name": "chatml",
        "system_template": "<|im_start|>system\n{system_message}<|im_end|>\n",
        "system_message": "",
        "render_empty_system_message": False,
        "add_role_after_system_message": True,
        "roles": {
            "user": "<|im_start|>user",
            "assistant": "<|im_start|>assistant",
            "tool": "<|im_start|>user",
        },
        "role_templates": {
            "user": "{user_message}",
            "assistant": "{assistant_message}",
            "tool": "{tool_message}",
        },
        "seps": ["<|im_end|>\n"],
        "role_content_sep": "\n",
        "role_empty_sep": "\n",
        "stop_str": [_CHATML_END],
        "stop_token_ids": ends or (eos if isinstance(eos, list) else [eos]),
    }
