"""Formats of tool calls, and which one a model writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from py_engine.output.tool_formats.base import ToolCallFormat
from py_engine.output.tool_formats.hermes import HermesFormat
from py_engine.output.tool_formats.llama3_json import Llama3JsonFormat
from py_engine.output.tool_formats.mistral import MistralFormat
from py_engine.output.tool_formats.pythonic import PythonicFormat

__all__ = ["TOOL_CALL_FORMATS", "ToolCallFormat", "detect_tool_call_format"]

# In the order in which they are tried: what is in a template, and what must not be in it.
_DETECTION: tuple[tuple[ToolCallFormat, str, str], ...] = (
    (MistralFormat(writes_names=True), r"\[ARGS\]", ""),
    (MistralFormat(writes_names=False), r"\[TOOL_CALLS\]", ""),
    # Qwen3-Coder and GLM write XML between the same tags.
    (HermesFormat(), r"<tool_call>", r"<function=|<arg_key>"),
    (PythonicFormat(), r"<\|tool_call_start\|>|\[\w+\(\w+=", ""),
    (Llama3JsonFormat(), r'<\|python_tag\|>|\{"name": [^{}]{0,40}"parameters": ', ""),
)
# Where there is no template, these tokens tell; ChatML's own models have the first one.
_TOKENS = {"<tool_call>": "hermes", "[TOOL_CALLS]": "mistral", "<|python_tag|>": "llama3_json"}

TOOL_CALL_FORMATS: Mapping[str, ToolCallFormat] = {form.name: form for form, _, _ in _DETECTION}


def detect_tool_call_format(
    template_source: str | None, token_to_id: Callable[[str], int | None]
) -> ToolCallFormat | None:
    """Return the format of a model by its chat template, else by its vocabulary; None if unknown.

    A model's name says nothing: the same family's models have had several formats.
    """
    if template_source is not None:
        for form, pattern, others in _DETECTION:
            if re.search(pattern, template_source):
                return None if others and re.search(others, template_source) else form
        return None
    for token, name in _TOKENS.items():
        if token_to_id(token) is not None:
            return TOOL_CALL_FORMATS[name]
    return None
