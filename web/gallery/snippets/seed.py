"""Seed

The same seed gives the same answer, another seed another one.

Section: Control
WebLLM: seed-to-reproduce
Docs: api.md
"""

from py_engine import create_web_worker_mlc_engine

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")
messages = [{"role": "user", "content": "Tell me a story about a boat."}]

answers = []
for seed in (42, 42, 43):
    reply = await engine.chat.completions.create(
        messages=messages, seed=seed, temperature=1, max_tokens=24
    )
    answers.append(reply.choices[0].message.content)
    print(f"seed {seed}: {answers[-1].strip()}\n")

print("Seed 42 twice is the same:", answers[0] == answers[1])
print("Seed 43 is the same:", answers[1] == answers[2])
