"""Deltas of replies validate against the `openai` package's types, strictly, and add up there."""

from __future__ import annotations

import pytest
from openai.types.chat.chat_completion_chunk import ChoiceDelta, ChoiceDeltaToolCall

from py_engine.output import TOOL_CALL_FORMATS
from tests.support.replies import deltas, make_parser

REPLIES = {
    "hermes": '<tool_call>{"name": "now", "arguments": {"a": 1}}</tool_call>\n' * 2,
    "llama3_json": '{"name": "now", "parameters": {"a": 1}}; {"name": "now", "parameters": {}}',
    "mistral": '[TOOL_CALLS] [{"name": "now", "arguments": {"a": 1}}]',
    "mistral_args": '[TOOL_CALLS]now[ARGS]{"a": 1}[TOOL_CALLS]now[ARGS]{}',
    "pythonic": "[now(a=1), now()]",
}


@pytest.mark.parametrize("form", TOOL_CALL_FORMATS)
def test_tool_call_deltas(form: str) -> None:
    parser = make_parser(form, reasoning=True)
    found = deltas(parser, f"<think>Hm.</think>{REPLIES[form]}")
    parsed = [ChoiceDelta.model_validate(delta, strict=True) for delta in found]
    assert parsed[0].model_extra == {"reasoning_content": "H"}
    calls: list[ChoiceDeltaToolCall] = []
    for part in (call for delta in parsed for call in delta.tool_calls or ()):
        assert part.model_extra == {}
        assert part.function is not None
        assert part.function.arguments is not None
        if part.id is not None:
            assert (part.index, part.type, part.function.arguments) == (len(calls), "function", "")
            calls.append(part)
        else:
            assert (part.index, part.type, part.function.name) == (len(calls) - 1, None, None)
            assert calls[-1].function is not None
            calls[-1].function.arguments = (
                calls[-1].function.arguments or ""
            ) + part.function.arguments
    assert calls[0].function is not None
    assert (calls[0].function.name, calls[0].function.arguments) == ("now", '{"a": 1}')
    assert len({call.id for call in calls}) == len(calls)
