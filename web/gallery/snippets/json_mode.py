"""JSON mode

Ask for JSON, and let a grammar see to it that the answer is nothing else.

Section: Answers of a given form
WebLLM: json-mode
Docs: structured-output.md
"""

import json

from py_engine import create_web_worker_mlc_engine

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")
question = "Answer in JSON with keys name and age: Mia is six years old."
reply = await engine.chat.completions.create(
    messages=[{"role": "user", "content": question}],
    response_format={"type": "json_object"},
    temperature=0,
    max_tokens=100,
)
text = reply.choices[0].message.content
print(text)
for key, value in json.loads(text).items():
    print(f"{key} is {value!r}")
