"""OpenAI's Python client

Code written for OpenAI's service runs on the model in this browser, with the real client.

Section: First steps
Docs: openai-client.md
Types: py
"""

import pyodide_js

await pyodide_js.loadPackage("openai")  # from this site

from py_engine import create_web_worker_mlc_engine
from py_engine.openai_transport import async_openai

model = "Llama-Storyteller-7M-q4f16_1-MLC"
client = async_openai(await create_web_worker_mlc_engine(model_id=model))
reply = await client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Who are you?"}],
    temperature=0,
    max_tokens=40,
)
print(f"{type(reply).__module__}.{type(reply).__name__}")
print(reply.choices[0].message.content)
