"""Prompts as WebLLM's own tests have them: C3, C4, C5 and C7 of its portable conformance list.

C6 is about images, for which there is no model here: image parts are refused (test_api_messages).
"""

from __future__ import annotations

import asyncio
from typing import Any

from py_engine.api.messages import checked_messages
from py_engine.conversation.conv_template import ConvTemplate
from py_engine.conversation.renderer import PromptRenderer
from py_engine.json_fields import JsonFields
from py_engine.tokenizer import tokenizer_from_json
from tests.support.tokenizer_files import tokenizer_json

ROLE_TEMPLATES = {
    "user": "{user_message}",
    "assistant": "{assistant_message}",
    "tool": "{tool_message}",
}
LLAMA_2 = {
    "system_template": "[INST] <<SYS>>\n{system_message}\n<</SYS>>\n\n",
    "system_message": "You are a helpful, respectful and honest assistant.",
    "system_prefix_token_ids": [1],
    "add_role_after_system_message": False,
    "roles": {"user": "[INST]", "assistant": "[/INST]", "tool": "[INST]"},
    "role_templates": ROLE_TEMPLATES,
    "seps": [" "],
    "role_content_sep": " ",
    "role_empty_sep": " ",
    "stop_str": ["[INST]"],
    "stop_token_ids": [2],
}
CHATML = {
    "system_template": "<|im_start|>system\n{system_message}<|im_end|>\n",
    "system_message": "You are a helpful assistant.",
    "roles": {
        "user": "<|im_start|>user",
        "assistant": "<|im_start|>assistant",
        "tool": "<|im_start|>tool",
    },
    "role_templates": ROLE_TEMPLATES,
    "seps": ["<|im_end|>\n"],
    "role_content_sep": "\n",
    "role_empty_sep": "\n",
    "stop_str": ["<|im_end|>"],
}
LLAMA_3 = {
    "system_template": "<|start_header_id|>system<|end_header_id|>\n\n{system_message}<|eot_id|>",
    "system_message": "You are a helpful, respectful and honest assistant.",
    "system_prefix_token_ids": [128000],
    "roles": {
        "user": "<|start_header_id|>user",
        "assistant": "<|start_header_id|>assistant",
        "tool": "<|start_header_id|>ipython",
    },
    "role_templates": ROLE_TEMPLATES,
    "seps": ["<|eot_id|>"],
    "role_content_sep": "<|end_header_id|>\n\n",
    "role_empty_sep": "<|end_header_id|>\n\n",
}


def template(data: dict[str, Any]) -> ConvTemplate:
    return ConvTemplate.from_fields(JsonFields(data, "mlc-chat-config.json"))


def prompt(data: dict[str, Any], messages: list[dict[str, Any]], **arguments: Any) -> str:
    return "".join(template(data).pieces(checked_messages(messages), **arguments))


def rounds(*contents: str) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


def test_c3_llama_2_prompt_drops_the_role_after_the_system_prefix() -> None:
    assert prompt(LLAMA_2, rounds("test1", "test2", "test3")) == (
        "[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant.\n<</SYS>>\n\n"
        "test1 [/INST] test2 [INST] test3 [/INST] "
    )


def test_c4_thinking_turned_off_is_an_empty_block_before_the_reply() -> None:
    head = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\ntest1<|im_end|>\n<|im_start|>assistant\ntest2<|im_end|>\n"
        "<|im_start|>user\ntest3<|im_end|>\n<|im_start|>assistant\n"
    )
    messages = rounds("test1", "test2", "test3")
    text = prompt(CHATML, messages, enable_thinking=False)
    assert text == head + "<think>\n\n</think>\n\n"
    assert prompt(CHATML, messages, enable_thinking=True) == prompt(CHATML, messages) == head


def test_c5_hermes_transcript_with_calls_in_the_contents() -> None:
    call = '<tool_call>\n{"arguments": {"symbol": "TSLA"}, "name": "fundamentals"}\n</tool_call>'
    result = '<tool_response>\n{"name": "fundamentals", "content": {\'eps\': 4.3}}\n'
    result += "</tool_response>\n"
    messages = [
        {"role": "system", "content": "You call functions. <tools> {} </tools>"},
        {"role": "user", "content": "Fetch Tesla's data"},
        {"role": "assistant", "content": call},
        {"role": "tool", "tool_call_id": "0", "content": result},
        {"role": "assistant", "content": "Here it is."},
        {"role": "user", "content": "Thank you."},
    ]
    assert prompt(CHATML, messages) == (
        "<|im_start|>system\nYou call functions. <tools> {} </tools><|im_end|>\n"
        "<|im_start|>user\nFetch Tesla's data<|im_end|>\n"
        f"<|im_start|>assistant\n{call}<|im_end|>\n"
        f"<|im_start|>tool\n{result}<|im_end|>\n"
        "<|im_start|>assistant\nHere it is.<|im_end|>\n"
        "<|im_start|>user\nThank you.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_c5_llama_3_1_transcript_of_ten_messages() -> None:
    contents = [
        ("system", "Reply with <function>{...}</function>."),
        ("user", "How warm is Paris?"),
        ("assistant", '<function>{"name": "temperature", "parameters": {}}</function>'),
        ("tool", '{"output": 22.5}'),
        ("assistant", "It is 22.5°C."),
        ("user", "Tell Tom."),
        ("assistant", '<function>{"name": "send", "parameters": {"to": "Tom"}}</function>'),
        ("tool", '{"output": None}'),
        ("assistant", "Sent."),
        ("user", "Thank you."),
    ]
    messages = [
        {"role": role, "content": content, **({"tool_call_id": "0"} if role == "tool" else {})}
        for role, content in contents
    ]
    names = {"tool": "ipython"}
    expected = "".join(
        f"<|start_header_id|>{names.get(role, role)}<|end_header_id|>\n\n{content}<|eot_id|>"
        for role, content in contents
    )
    assert prompt(LLAMA_3, messages) == (
        expected + "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_c7_what_the_next_request_shares_with_this_one() -> None:
    """The kept K/V are the common beginning of ids, which covers WebLLM's truth table.

    # differs: two new inputs at once keep the history too, and a `name` changes no prompt.
    """
    tokenizer = asyncio.run(tokenizer_from_json(tokenizer_json("llama2")))
    renderer = PromptRenderer(tokenizer, template(LLAMA_2), frozenset())

    def ids(messages: list[dict[str, Any]]) -> list[int]:
        return renderer.render(checked_messages(messages)).token_ids

    def shared(messages: list[dict[str, Any]]) -> int:
        pairs = zip(ids(first), ids(messages), strict=False)
        return next(
            (i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), len(ids(first))
        )

    system = {"role": "system", "content": "Be as happy as you can."}
    first = [system, *rounds("Three states.")]
    next_turn = [system, *rounds("Three states.", "Ohio, Iowa, Utah.", "Two more")]
    assert shared(next_turn) == len(ids(first))
    two_turns = [system, *rounds("Three states.", "Ohio.", "Two more", "Texas.", "Thanks")]
    assert shared(two_turns) == len(ids(first))
    other_system = [{"role": "system", "content": "No."}, *next_turn[1:]]
    assert shared(other_system) < len(renderer.render([system]).token_ids)
    named = [system, {**first[1], "name": "Bob"}, *next_turn[2:]]
    assert ids(named) == ids(next_turn)
