"""Tools

Let the model call a Python function, and answer with what the function returns.

Section: Answers of a given form
WebLLM: function-calling
Docs: tools.md
"""

import json

from py_engine import create_web_worker_mlc_engine


def get_weather(city):
    """Return the weather as the text for the model; a real tool would ask a service."""
    return '{"temperature": 21, "condition": "sunny"}'


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Get the weather in a city", "parameters": CITY}
request = {"tools": [{"type": "function", "function": TOOL}], "temperature": 0, "max_tokens": 60}

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")
messages = [{"role": "user", "content": "What is the weather in Paris?"}]
reply = await engine.chat.completions.create(
    messages=messages, tool_choice="required", parallel_tool_calls=False, **request
)
message = reply.choices[0].message
messages.append(message)
for call in message.tool_calls:
    print(f"The model calls {call.function.name} with {call.function.arguments}")
    result = get_weather(**json.loads(call.function.arguments))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

reply = await engine.chat.completions.create(messages=messages, **request)
print(reply.choices[0].message.content)
