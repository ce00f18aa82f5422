"""Prompts from messages: WebLLM's conv_template, Jinja templates, and the choice between them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from py_engine.chat_config import ChatConfig
from py_engine.conversation import PromptRenderer, load_prompt_renderer
from py_engine.conversation.conv_template import ConvTemplate
from py_engine.conversation.jinja_template import ChatTemplate
from py_engine.errors import (
    ChatTemplateError,
    ConfigurationFieldError,
    ModelFileFormatError,
    UnsupportedRoleError,
)
from py_engine.json_fields import JsonFields
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from tests.support.memory_source import MemorySource
from tests.support.tokenizer_files import tokenizer_json

CHATML = {
    "system_template": "<|im_start|>system\n{system_message}<|im_end|>\n",
    "system_message": "You are a helpful assistant.",
    "roles": {"user": "<|im_start|>user", "assistant": "<|im_start|>assistant"},
    "seps": ["<|im_end|>\n"],
    "role_content_sep": "\n",
    "role_empty_sep": "\n",
    "stop_str": ["<|im_end|>"],
    "stop_token_ids": [502],
}
LLAMA_2 = {
    "system_template": "[INST] <<SYS>>\n{system_message}\n<</SYS>>\n\n",
    "system_message": "You are a helpful, respectful and honest assistant.",
    "roles": {"user": "[INST]", "assistant": "[/INST]", "tool": "[INST]"},
    "role_templates": {
        "user": "{user_message}",
        "assistant": "{assistant_message}",
        "tool": "{tool_message}",
    },
    "seps": [" "],
    "role_content_sep": " ",
    "role_empty_sep": " ",
    "stop_str": ["[INST]"],
    "stop_token_ids": [2],
    "system_prefix_token_ids": [1],
    "add_role_after_system_message": False,
}
CONFIG = {
    "model_type": "llama",
    "quantization": "q4f16_1",
    "model_config": {},
    "vocab_size": 504,
    "context_window_size": 64,
}
ROUNDS = [
    {"role": "user", "content": "test1"},
    {"role": "assistant", "content": "test2"},
    {"role": "user", "content": "test3"},
]


def conv_template(data: dict[str, Any], **changes: Any) -> ConvTemplate:
    return ConvTemplate.from_fields(JsonFields(data | changes, "mlc-chat-config.json"))


def prompt(template: ConvTemplate, messages: list[dict[str, Any]], **arguments: Any) -> str:
    return "".join(template.pieces(messages, **arguments))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return asyncio.run(tokenizer_from_json(tokenizer_json("qwen2")))


def load(
    tokenizer: Tokenizer,
    files: dict[str, Any],
    chat_opts: dict[str, Any] | None = None,
    **config: Any,
) -> PromptRenderer:
    source = MemorySource(
        {path: data if isinstance(data, str) else json.dumps(data) for path, data in files.items()}
    )
    chat_config = ChatConfig.from_json(CONFIG | config, chat_opts=chat_opts)
    return asyncio.run(load_prompt_renderer(source, chat_config, tokenizer))


def text_of(tokenizer: Tokenizer, renderer: PromptRenderer, **arguments: Any) -> str:
    prompt = renderer.render(ROUNDS[:1], **arguments)
    return tokenizer.decode(prompt.token_ids, skip_special_tokens=False)


def test_llama_2_prompt_drops_the_first_role_after_the_system_prompt() -> None:
    assert prompt(conv_template(LLAMA_2), ROUNDS) == (
        "[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant.\n<</SYS>>\n\n"
        "test1 [/INST] test2 [INST] test3 [/INST] "
    )


def test_chatml_prompt_has_the_default_system_message() -> None:
    assert prompt(conv_template(CHATML), ROUNDS[:1]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\ntest1<|im_end|>\n<|im_start|>assistant\n"
    )


def test_system_message_of_the_request_replaces_the_default() -> None:
    messages = [{"role": "system", "content": "$& \\1 {user_message}"}, *ROUNDS[:1]]
    text = prompt(conv_template(CHATML), messages)
    assert text.startswith("<|im_start|>system\n$& \\1 {user_message}<|im_end|>\n")
    assert "helpful" not in text


def test_pieces_are_the_strings_that_webllm_tokenizes_one_by_one() -> None:
    pieces = conv_template(CHATML).pieces(ROUNDS)
    assert len(pieces) == 5
    assert pieces[2] == "<|im_start|>assistant\ntest2<|im_end|>\n"


def test_without_generation_prompt_there_is_no_reply_header() -> None:
    template = conv_template(CHATML)
    assert prompt(template, ROUNDS, add_generation_prompt=False).endswith("test3<|im_end|>\n")


def test_separators_alternate_and_default_to_colon_space() -> None:
    template = ConvTemplate.from_fields(
        JsonFields({"roles": {"user": "U", "assistant": "A"}, "seps": ["|", "#"]}, "file")
    )
    assert prompt(template, ROUNDS) == "U: test1|A: test2#U: test3|A: "


def test_empty_separators_are_kept_empty() -> None:
    template = conv_template(CHATML, role_content_sep="", role_empty_sep="", system_message="")
    assert prompt(template, ROUNDS[:1]).endswith("usertest1<|im_end|>\n<|im_start|>assistant")


def test_empty_system_message_can_be_left_out() -> None:
    template = conv_template(CHATML, system_message="", render_empty_system_message=False)
    assert prompt(template, ROUNDS[:1]).startswith("<|im_start|>user")
    template = conv_template(CHATML, system_message="")
    assert prompt(template, ROUNDS[:1]).startswith("<|im_start|>system\n<|im_end|>")


def test_role_templates_are_filled_with_the_text_as_it_is() -> None:
    templates = {"user": "<{user_message}|{function_string}>"}
    template = conv_template(CHATML, role_templates=templates)
    text = prompt(template, [{"role": "user", "content": "{function_string} {user_message}"}])
    assert "<{function_string} {user_message}|>" in text


def test_tool_messages_need_a_tool_role() -> None:
    messages = [*ROUNDS, {"role": "tool", "content": "7"}]
    assert "[INST] 7 [/INST]" in prompt(conv_template(LLAMA_2), messages)
    with pytest.raises(UnsupportedRoleError, match=r"'tool'.*assistant, user"):
        prompt(conv_template(CHATML), messages)


def test_messages_name_does_not_replace_the_role() -> None:
    messages = [{"role": "user", "content": "hi", "name": "Ann"}]
    assert "<|im_start|>user\nhi" in prompt(conv_template(CHATML), messages)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"roles": {"user": "U"}}, "roles.assistant"),
        ({"roles": {"user": "U", "assistant": 5}}, "roles.assistant"),
        ({"seps": []}, "seps"),
        ({"seps": "x"}, "seps"),
        ({"stop_token_ids": ["2"]}, "stop_token_ids"),
        ({"stop_str": [2]}, "stop_str"),
        ({"role_templates": {"user": 1}}, "role_templates.user"),
        ({"add_role_after_system_message": "no"}, "add_role_after_system_message"),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelFileFormatError, match=named):
        conv_template(CHATML, **changes)


def test_prefix_token_ids_come_before_the_text(tokenizer: Tokenizer) -> None:
    renderer = load(tokenizer, {}, conv_template=LLAMA_2)
    ids = renderer.render(ROUNDS).token_ids
    assert ids[0] == 1
    assert tokenizer.decode(ids[1:]).startswith("[INST] <<SYS>>")


def test_conv_template_gives_stop_strings_and_ids(tokenizer: Tokenizer) -> None:
    renderer = load(tokenizer, {}, conv_template=CHATML, eos_token_id=[500, 501])
    assert renderer.stop_token_ids == {500, 501, 502}
    assert renderer.stop_strings == ("<|im_end|>",)


def test_default_eos_token_id_is_not_a_stop_token(tokenizer: Tokenizer) -> None:
    assert load(tokenizer, {}, conv_template=CHATML).stop_token_ids == {502}


def test_stop_str_may_be_one_string(tokenizer: Tokenizer) -> None:
    template = CHATML | {"stop_str": "</s>"}
    assert load(tokenizer, {}, conv_template=template).stop_strings == ("</s>",)


JINJA = "{{ bos_token }}{% for m in messages %}({{ m.role }}:{{ m.content }}){% endfor %}"


def test_chat_template_of_tokenizer_config_is_preferred(tokenizer: Tokenizer) -> None:
    files = {
        "tokenizer_config.json": {
            "chat_template": JINJA,
            "bos_token": {"content": "<|im_start|>", "lstrip": False},
            "eos_token": "<|endoftext|>",
            "pad_token": None,
        }
    }
    renderer = load(tokenizer, files, conv_template=CHATML)
    assert text_of(tokenizer, renderer) == "<|im_start|>(user:test1)"
    assert renderer.render(ROUNDS[:1]).token_ids[0] == tokenizer.token_to_id("<|im_start|>")
    assert renderer.stop_token_ids == {tokenizer.token_to_id("<|endoftext|>"), 502}


@pytest.mark.parametrize("field", ["conv_template", "conv_config"])
def test_chat_opts_override_the_chat_template(tokenizer: Tokenizer, field: str) -> None:
    files = {"tokenizer_config.json": {"chat_template": JINJA}}
    opts = {field: CHATML | {"system_message": "Mine."}}
    renderer = load(tokenizer, files, opts, conv_template=CHATML)
    assert "system\nMine.<|im_end|>" in text_of(tokenizer, renderer)


def test_conv_config_lies_over_conv_template(tokenizer: Tokenizer) -> None:
    renderer = load(tokenizer, {}, conv_template=CHATML, conv_config={"system_message": "Mine."})
    assert "system\nMine.<|im_end|>" in text_of(tokenizer, renderer)


def test_wrong_conv_template_of_chat_opts_is_a_configuration_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigurationFieldError, match=r"chat_opts: conv_template\.seps"):
        load(tokenizer, {}, {"conv_template": CHATML | {"seps": []}})


def test_template_file_goes_before_tokenizer_config(tokenizer: Tokenizer) -> None:
    files = {
        "tokenizer_config.json": {"chat_template": "wrong"},
        "chat_template.jinja": "right",
    }
    assert text_of(tokenizer, load(tokenizer, files)) == "right"


def test_named_templates_choose_tool_use_for_tools(tokenizer: Tokenizer) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    renderer = load(tokenizer, {"tokenizer_config.json": {"chat_template": named}})
    assert text_of(tokenizer, renderer) == "plain"
    assert text_of(tokenizer, renderer, tools=[{"type": "function"}]) == "tools"
    only = load(tokenizer, {"tokenizer_config.json": {"chat_template": named[1:]}})
    assert text_of(tokenizer, only) == "tools"


def test_template_arguments_reach_the_template(tokenizer: Tokenizer) -> None:
    files = {"chat_template.jinja": "{{ enable_thinking }}"}
    assert text_of(tokenizer, load(tokenizer, files), enable_thinking=False) == "False"


def test_files_that_are_not_listed_are_not_asked_for(tokenizer: Tokenizer) -> None:
    source = MemorySource({"tokenizer_config.json": "{}"})
    config = ChatConfig.from_json(CONFIG | {"tokenizer_files": ["tokenizer.json"]})
    asyncio.run(load_prompt_renderer(source, config, tokenizer))
    assert source.requested == []


def test_base_models_load_but_do_not_chat(tokenizer: Tokenizer) -> None:
    for config in ({}, {"conv_template": "llama-2"}):
        renderer = load(tokenizer, {}, **config)
        with pytest.raises(ChatTemplateError, match="conv_template in chat_opts"):
            renderer.render(ROUNDS)


@pytest.mark.parametrize("data", [[], 5, "x"])
def test_tokenizer_config_that_is_no_object_is_named(tokenizer: Tokenizer, data: Any) -> None:
    with pytest.raises(ModelFileFormatError, match=r"tokenizer_config\.json"):
        load(tokenizer, {"tokenizer_config.json": json.dumps(data)})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('Roles must alternate') }}", "Roles must alternate"),
        ("{% if %}", "line 1"),
        ("{{ messages[0].nothing.more }}", "nothing"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages.append(1) }}", "immutable|unsafe|not safe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% set ns = namespace(_x=1) %}", "underscore"),
        ("{% set ns = namespace() %}{% set ns._x = 1 %}", "underscore"),
        ("{% for i in range(10000000) %}{% endfor %}", "OverflowError"),
    ],
)
def test_template_failures_are_chat_template_errors(template: str, message: str) -> None:
    with pytest.raises(ChatTemplateError, match=message):
        ChatTemplate({"default": template}).pieces(ROUNDS)


def test_rendering_leaves_the_messages_alone() -> None:
    messages = [{"role": "assistant", "content": "4", "reasoning": "2+2"}]
    template = ChatTemplate({"default": "{{ messages[0].reasoning_content }}"})
    assert template.pieces(messages) == ["2+2"]
    assert messages == [{"role": "assistant", "content": "4", "reasoning": "2+2"}]


def test_dict_and_namespace_helpers_work_in_templates() -> None:
    source = (
        "{% set d = dict.fromkeys(['a'], 1) %}{{ dict(d, b=2) | tojson }}"
        "{% set ns = namespace(self=3) %}{{ ns.self }}"
    )
    assert ChatTemplate({"default": source}).pieces([]) == ['{"a": 1, "b": 2}3']
