"""Get started

Load the model of this site into a worker and ask it something: three lines to the first answer.

Section: First steps
WebLLM: get-started
Docs: api.md
"""

from py_engine import create_web_worker_mlc_engine

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")
messages = [{"role": "user", "content": "Tell me a story about a brave little fox."}]
reply = await engine.chat.completions.create(messages=messages, max_tokens=60)

print(reply.choices[0].message.content)
