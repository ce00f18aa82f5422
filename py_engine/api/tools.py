"""`tools` and `tool_choice`: what the model may call, and whether it must."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from py_engine.api.response_format import NAME, NAME_WANTED
from py_engine.errors import (
    ConfigValueError,
    FunctionNotFoundError,
    InvalidToolChoiceError,
    UnsupportedToolChoiceTypeError,
    UnsupportedToolTypeError,
)
from py_engine.grammar.json_schema import check_json_schema
from py_engine.json_fields import JsonFields
from py_engine.json_values import shown

Tool = dict[str, Any]

_MODES = ("none", "auto", "required")


@dataclass(frozen=True)
class ToolChoice:
    """Whether the model calls a tool: never, as it likes, at least one, or `name` ("named")."""

    mode: Literal["none", "auto", "required", "named"] = "none"
    name: str | None = None

    @property
    def is_forced(self) -> bool:
        """Whether the reply must be a call."""
        return self.mode in ("required", "named")


NO_TOOLS = ToolChoice()


def tools_and_choice(fields: JsonFields) -> tuple[tuple[Tool, ...], ToolChoice]:
    """Return the tools that may be called, in OpenAI's form, and the choice.

    Each is {"type": "function", "function": {...}} as it was given, because templates render it,
    with `parameters` always there: a JSON Schema of type "object". OpenAI's choice "allowed_tools"
    leaves only the tools that it names.
    Errors: UnsupportedToolTypeError, ConfigValueError, InvalidToolChoiceError,
    UnsupportedToolChoiceTypeError, FunctionNotFoundError, InvalidResponseFormatError for a schema
    that cannot be enforced.
    """
    tools = _tools(fields)
    tools, choice = _choice(fields.value("tool_choice"), tools)
    for index, tool in enumerate(tools):
        function = tool["function"]
        strict = bool(function.get("strict"))
        if choice.is_forced or (strict and choice.mode == "auto"):
            check_json_schema(
                function["parameters"],
                f"request: tools[{index}].function.parameters",
                strict=strict,
            )
    return tools, choice


def _tools(fields: JsonFields) -> tuple[Tool, ...]:
    if "tools" not in fields:
        return ()
    tools = tuple(map(_tool, fields.objects("tools")))
    names = [tool["function"]["name"] for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigValueError(
            f"request: tools has the function '{twice}' more than once. Give each its own name."
        )
    return tools


def _tool(fields: JsonFields) -> Tool:
    if fields.value("type") != "function":
        raise UnsupportedToolTypeError(
            f"{fields.where('type')} is {shown(fields.value('type'))}, but must be 'function'."
        )
    function = fields.object("function")
    name = function.string("name")
    if not NAME.fullmatch(name):
        raise function.invalid("name", NAME_WANTED)
    function.string("description", "")
    function.boolean("strict", False)
    parameters = dict(function.object("parameters").data)
    for key, default in (("type", "object"), ("properties", {})):
        parameters.setdefault(key, default)
    if parameters["type"] != "object":
        raise function.invalid("parameters", "a JSON Schema of type 'object'")
    given = {key: value for key, value in function.data.items() if value is not None}
    return {"type": "function", "function": {**given, "parameters": parameters}}


def _choice(choice: Any, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], ToolChoice]:
    if choice is None:
        choice = "auto" if tools else "none"
    if isinstance(choice, str) and choice in _MODES:
        return tools, _mode(choice, tools)
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    if kind == "function":
        return tools, ToolChoice("named", _known_name(choice, "tool_choice", tools))
    if kind == "allowed_tools":
        return _allowed(choice, tools)
    if isinstance(kind, str):
        raise UnsupportedToolChoiceTypeError(
            f"request: tool_choice.type is {shown(kind)}, but must be 'function' or "
            "'allowed_tools'."
        )
    raise InvalidToolChoiceError(
        f"request: tool_choice is {shown(choice)}, but must be 'none', 'auto', 'required' or "
        '{"type": "function", "function": {"name": "..."}}.'
    )


def _mode(mode: str, tools: Sequence[Tool]) -> ToolChoice:
    if mode == "required" and not tools:
        raise InvalidToolChoiceError(
            "request: tool_choice is 'required', but there are no tools. Give tools, or leave "
            "tool_choice out."
        )
    if mode == "auto" and tools:
        return ToolChoice("auto")
    return ToolChoice("required") if mode == "required" else NO_TOOLS


def _known_name(choice: Mapping[str, Any], where: str, tools: Sequence[Tool]) -> str:
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise InvalidToolChoiceError(
            f"request: {where}.function.name is {shown(name)}, but must be a tool's name."
        )
    names = [tool["function"]["name"] for tool in tools]
    if name not in names:
        raise FunctionNotFoundError(
            f"request: {where}.function.name is {shown(name)}, but tools has "
            f"{', '.join(names) or 'no function'}."
        )
    return name


def _allowed(
    choice: Mapping[str, Any], tools: tuple[Tool, ...]
) -> tuple[tuple[Tool, ...], ToolChoice]:
    allowed = choice.get("allowed_tools")
    listed = allowed.get("tools") if isinstance(allowed, Mapping) else None
    mode = allowed.get("mode") if isinstance(allowed, Mapping) else None
    if not isinstance(listed, list) or mode not in ("auto", "required"):
        raise InvalidToolChoiceError(
            "request: tool_choice.allowed_tools must have mode 'auto' or 'required' and a list of "
            f"tools, but is {shown(allowed)}."
        )
    where = "tool_choice.allowed_tools.tools"
    names = {
        _known_name(each if isinstance(each, Mapping) else {}, f"{where}[{index}]", tools)
        for index, each in enumerate(listed)
    }
    kept = tuple(tool for tool in tools if tool["function"]["name"] in names)
    return kept, _mode(mode, kept)
