"""Tools in the text of messages, for a `conv_template`, which has no place of its own for them.

In the words that the Hermes models were trained on (Hermes-Function-Calling of NousResearch on
GitHub); the models of WebLLM's `functionCallingModelIds` are such.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from py_engine.conversation.conv_template import ConvTemplate

Message = Mapping[str, Any]

_CALL_SCHEMA = (
    '{"properties": {"arguments": {"title": "Arguments", "type": "object"}, "name": {"title": '
    '"Name", "type": "string"}}, "required": ["arguments", "name"], "title": "FunctionCall", '
    '"type": "object"}'
)
_SYSTEM_PROMPT = (
    "You are a function calling AI model. You are provided with function signatures within "
    "<tools></tools> XML tags. You may call one or more functions to assist with the user query. "
    "Don't make assumptions about what values to plug into functions. Here are the available "
    "tools: <tools> %s </tools> Use the following pydantic model json schema for each tool call "
    f"you will make: {_CALL_SCHEMA} For each function call return a json object with function name "
    "and arguments within <tool_call></tool_call> XML tags as follows:\n<tool_call>\n"
    '{"arguments": <args-dict>, "name": <function-name>}\n</tool_call>'
)


class HermesTemplate:
    """A `conv_template` whose messages tell the tools, the calls and their results.

    # differs: WebLLM refuses a system message beside tools; here it comes before the tools' text.
    """

    source: ClassVar[None] = None
    supports_tools: ClassVar[bool] = True

    def __init__(self, template: ConvTemplate) -> None:
        # Without a role of their own, results come from the user, as Qwen has it.
        roles = {"tool": template.roles["user"], **template.roles}
        self._template = dataclasses.replace(template, roles=roles)

    @property
    def prefix_token_ids(self) -> tuple[int, ...]:
        """The ids before all text."""
        return self._template.prefix_token_ids

    def pieces(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **template_args: Any,
    ) -> list[str]:
        """Return the prompt's strings (see ConvTemplate.pieces)."""
        return self._template.pieces(
            _with_tools_as_text(messages, tools or ()),
            add_generation_prompt=add_generation_prompt,
            **template_args,
        )


def _with_tools_as_text(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> list[Message]:
    has_calls = any(message.get("tool_calls") for message in messages)
    shown = [_as_text(message, has_calls) for message in messages]
    if not tools:
        return shown
    prompt = _SYSTEM_PROMPT % " ".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    if shown and shown[0]["role"] == "system":
        system = shown.pop(0)["content"]
        prompt = f"{system}\n\n{prompt}" if system else prompt
    return [{"role": "system", "content": prompt}, *shown]


def _as_text(message: Message, has_calls: bool) -> Message:
    content = message.get("content") or ""
    if message.get("tool_calls"):
        calls = "\n".join(_call_text(call["function"]) for call in message["tool_calls"])
        return {**message, "content": f"{content}\n{calls}" if content else calls}
    if message["role"] == "tool" and has_calls:
        return {**message, "content": f"<tool_response>\n{content}\n</tool_response>"}
    return message


def _call_text(function: Mapping[str, Any]) -> str:
    call = {"arguments": function["arguments"], "name": function["name"]}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"
