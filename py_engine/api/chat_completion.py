"""Chat completion requests: OpenAI's fields with WebLLM's errors, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from py_engine.api.known_fields import CHAT_FIELDS
from py_engine.api.messages import checked_messages
from py_engine.api.resumable import Resumable, resumable
from py_engine.api.sampling import SamplingFields, sampling_fields, top_logprobs
from py_engine.api.tools import NO_TOOLS, Tool, ToolChoice, tools_and_choice
from py_engine.errors import ConfigValueError
from py_engine.json_fields import JsonFields

# What a chat template is given by the engine itself.
_OWN_TEMPLATE_ARGUMENTS = ("add_generation_prompt", "messages", "tools")

_REASONING_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")


@dataclass(frozen=True, kw_only=True)
class ChatCompletionRequest(SamplingFields):
    """A checked request.

    `enable_thinking` None leaves it to the model. `template_args` are further arguments of the chat
    template (`chat_template_kwargs`, `reasoning_effort`). `resumable` None: not kept.
    """

    messages: list[dict[str, Any]]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = NO_TOOLS
    parallel_tool_calls: bool = True
    enable_thinking: bool | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    resumable: Resumable | None = None

    @staticmethod
    def from_dict(
        request: Mapping[str, Any], *, takes_images: bool = False
    ) -> ChatCompletionRequest:
        """Check a request; `takes_images` as in `checked_messages`.

        Errors: RequestError's classes, each naming the field, its value and what it must be.
        """
        fields = CHAT_FIELDS.read(request)
        tools, choice = tools_and_choice(fields)
        thinking, template_args = _template_arguments(fields)
        return ChatCompletionRequest(
            messages=checked_messages(fields.value("messages"), takes_images=takes_images),
            **sampling_fields(fields),
            top_logprobs=top_logprobs(fields),
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=fields.boolean("parallel_tool_calls", True),
            enable_thinking=thinking,
            template_args=template_args,
            resumable=resumable(fields),
            unknown_fields=CHAT_FIELDS.unknown(fields),
        )


def _template_arguments(fields: JsonFields) -> tuple[bool | None, dict[str, Any]]:
    """Return `enable_thinking`, which has three spellings, and the template's other arguments."""
    arguments = dict(fields.object("chat_template_kwargs").data)
    own = next((name for name in _OWN_TEMPLATE_ARGUMENTS if name in arguments), None)
    if own is not None:
        raise ConfigValueError(
            f"request: chat_template_kwargs.{own} is given, but that argument is the engine's own. "
            "Leave it out."
        )
    effort = fields.string("reasoning_effort", "")
    if effort and effort not in _REASONING_EFFORTS:
        raise fields.invalid("reasoning_effort", f"one of {', '.join(_REASONING_EFFORTS)}")
    if effort:
        arguments.setdefault("reasoning_effort", effort)
    source = fields if "enable_thinking" in fields else fields.object("chat_template_kwargs")
    arguments.pop("enable_thinking", None)
    if "enable_thinking" in source:
        return source.boolean("enable_thinking"), arguments
    return (False if effort == "none" else None), arguments
