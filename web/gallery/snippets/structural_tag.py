"""Structural tags

A format of your own for calls of tools: tags whose contents follow a schema.

Section: Answers of a given form
WebLLM: structural-tag-tool-use
Docs: structured-output.md
"""

import json

from py_engine import create_web_worker_mlc_engine


def call_of(tool, argument):
    """Return the tag of a tool that takes one short text."""
    schema = {
        "type": "object",
        "properties": {argument: {"type": "string", "maxLength": 20}},
        "required": [argument],
    }
    content = {"type": "json_schema", "json_schema": schema}
    return {"type": "tag", "begin": f"<call={tool}>", "content": content, "end": "</call>"}


TAGS = {
    "type": "triggered_tags",
    "triggers": ["<call="],
    "tags": [call_of("get_weather", "city"), call_of("get_time", "city")],
    "at_least_one": True,
    "stop_after_first": True,
}

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")
reply = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "What is the weather in Paris?"}],
    response_format={"type": "structural_tag", "structural_tag": {"format": TAGS}},
)
text = reply.choices[0].message.content
print(text)

tool, _, rest = text.partition("<call=")[2].partition(">")
arguments = json.loads(rest.partition("</call>")[0])
print(f"The tool is {tool}, the city is {arguments['city']}.")
