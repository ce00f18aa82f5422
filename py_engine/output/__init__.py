"""What a model's text means: reasoning, answer, tool calls.

Knows nothing of tokens or of models; what a model's calls look like is told by its chat template
and vocabulary (`tool_formats`).
"""

from py_engine.output.message_parser import MessageParser
from py_engine.output.reasoning import THINK_BEGIN, THINK_END
from py_engine.output.tool_formats import (
    TOOL_CALL_FORMATS,
    ToolCallFormat,
    detect_tool_call_format,
)

__all__ = [
    "THINK_BEGIN",
    "THINK_END",
    "TOOL_CALL_FORMATS",
    "MessageParser",
    "ToolCallFormat",
    "detect_tool_call_format",
]
