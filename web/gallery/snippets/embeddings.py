"""Embeddings with retrieval

Find the text that fits a question best, and let the chat model answer with it at hand.

Section: Models
WebLLM: embeddings
Docs: embeddings.md
"""

from py_engine import create_web_worker_mlc_engine

CHAT_MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"
ENCODER = {
    "model": "https://huggingface.co/mlc-ai/snowflake-arctic-embed-s-q0f32-MLC",
    "model_id": "snowflake-arctic-embed-s",
    "model_type": 1,
}
CHAT = {"model": f"models/{CHAT_MODEL}/", "model_id": CHAT_MODEL}
TEXTS = [
    "The dog ran over the green hill and barked at the birds.",
    "The captain steered the boat through the storm to the island.",
    "The baker sells bread and cakes at the market each morning.",
]
QUESTION = "Where did the ship go?"


async def embed(texts):
    response = await engine.embeddings.create(input=texts, model=ENCODER["model_id"])
    return [entry.embedding for entry in response.data]


def similarity(a, b):
    return sum(x * y for x, y in zip(a, b))


engine = await create_web_worker_mlc_engine(
    model_id=[CHAT_MODEL, ENCODER["model_id"]],
    engine_config={"app_config": {"model_list": [CHAT, ENCODER]}},
    chat_opts=[{}, {"normalize": True}],
)
vectors = await embed(TEXTS)
[asked] = await embed(["Represent this sentence for searching relevant passages: " + QUESTION])
ranked = sorted(zip([similarity(asked, vector) for vector in vectors], TEXTS), reverse=True)
for score, text in ranked:
    print(f"{score:.3f}  {text}")

reply = await engine.chat.completions.create(
    model=CHAT_MODEL,
    messages=[{"role": "user", "content": f"{ranked[0][1]} {QUESTION}"}],
    max_tokens=30,
)
print(f"\n{QUESTION} {reply.choices[0].message.content}")
