"""Multi models

Two models in one engine: each request names one, and they answer at the same time.

Section: Models
WebLLM: multi-models
Docs: several-models.md
"""

import asyncio

from py_engine import create_web_worker_mlc_engine

# The model of this site under two names; they may as well be any two of the list.
FILES = "models/Llama-Storyteller-7M-q4f16_1-MLC/"
RECORDS = [
    {"model": FILES, "model_id": "cautious", "overrides": {"temperature": 0.1}},
    {"model": FILES, "model_id": "daring", "overrides": {"temperature": 1.5}},
]


async def ask(model):
    messages = [{"role": "user", "content": "Tell me a story about a robot."}]
    reply = await engine.chat.completions.create(messages=messages, model=model, max_tokens=30)
    return reply.model, reply.choices[0].message.content.strip()


engine = await create_web_worker_mlc_engine(
    model_id=["cautious", "daring"], engine_config={"app_config": {"model_list": RECORDS}}
)
for model, text in await asyncio.gather(ask("cautious"), ask("daring")):
    print(f"{model}: {text}\n")
print(f"{(await engine.get_gpu_memory()).nbytes / 1e6:.1f} MB on the GPU")
