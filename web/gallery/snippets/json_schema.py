"""JSON schema

Have objects, lists and choices filled in: every answer is an instance of the schema.

Section: Answers of a given form
WebLLM: json-schema
Docs: structured-output.md
"""

import json

from py_engine import create_web_worker_mlc_engine

NAME = {"type": "string", "pattern": "^[A-Z][a-z]{2,9}$"}
WAND = {
    "type": "object",
    "properties": {
        "wood": {"enum": ["holly", "oak", "willow"]},
        "inches": {"type": "integer", "minimum": 9, "maximum": 15},
    },
    "required": ["wood", "inches"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": NAME,
        "house": {"enum": ["Gryffindor", "Hufflepuff", "Ravenclaw", "Slytherin"]},
        "age": {"type": "integer", "minimum": 11, "maximum": 150},
        "wand": WAND,
        "friends": {"type": "array", "items": NAME, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "house", "age", "wand", "friends"],
    "additionalProperties": False,
}

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")
reply = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "Describe Harry Potter in JSON."}],
    response_format={
        "type": "json_schema",
        "json_schema": {"name": "wizard", "schema": SCHEMA, "strict": True},
    },
)
text = reply.choices[0].message.content
print(text)
wizard = json.loads(text)
print(f"\n{wizard['name']} of {wizard['house']} has {len(wizard['friends'])} friends.")
