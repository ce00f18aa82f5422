"""Embeddings with retrieval

Find the text that belongs to a question by its meaning, and give it to the chat model.

Section: Models
WebLLM: embeddings
Docs: embeddings.md
"""

from py_engine import create_web_worker_mlc_engine

CHAT_MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"
ENCODER = "Story-Words-1M-q4f16_1-MLC"  # as small; others are "snowflake-arctic-embed-..."
RECORDS = [{"model": f"models/{name}/", "model_id": name} for name in (CHAT_MODEL, ENCODER)]
TEXTS = [
    "The dog ran over the green hill and barked at the birds.",
    "The captain sailed through the storm to a small island.",
    "The baker sells bread and cakes at the market each morning.",
    "The princess lives in a castle with the king and the queen.",
    "At night the moon and many stars shine over the village.",
]
QUESTIONS = ["Who wears a crown?", "What is bright in the dark sky?", "Where did the ship go?"]


async def embed(texts):
    response = await engine.embeddings.create(input=texts, model=ENCODER)
    return [entry.embedding for entry in response.data]


def similarity(a, b):
    """Return the cosine of the angle between two vectors, whose length is 1."""
    return sum(x * y for x, y in zip(a, b))


engine = await create_web_worker_mlc_engine(
    model_id=[CHAT_MODEL, ENCODER], engine_config={"app_config": {"model_list": RECORDS}}
)
vectors = await embed(TEXTS)
for question, asked in zip(QUESTIONS, await embed(QUESTIONS)):
    scores = [similarity(asked, vector) for vector in vectors]
    best = TEXTS[scores.index(max(scores))]
    print(f"{question}\n{max(scores):.2f}  {best}\n")

reply = await engine.chat.completions.create(
    model=CHAT_MODEL,
    messages=[{"role": "user", "content": f"Tell me a story. It begins like this: {best}"}],
    max_tokens=40,
)
print(reply.choices[0].message.content)
