"""Logit processor

Python with NumPy between the model and the draw of a token: here it forbids to say a token twice.

Section: Control
WebLLM: logit-processor
Docs: logit-processors.md
"""

import js

from py_engine import create_web_worker_mlc_engine
from py_engine.rpc.transport_browser import create_worker

# It runs in the worker, next to the engine: usually a file, `create_worker(script="./it.py")`.
PROCESSOR = """
import numpy as np


class NeverTwice:
    def __init__(self):
        self.said = []

    def process_logits(self, logits):
        logits[self.said] = -np.inf
        return logits

    def process_sampled_token(self, token_id):
        self.said.append(token_id)

    def reset_state(self):
        self.said.clear()


def start(handler):
    model_id = "Llama-Storyteller-7M-q4f16_1-MLC"
    handler.engine.set_logit_processor_registry({model_id: NeverTwice()})
"""

script = js.URL.createObjectURL(js.Blob.new(js.Array.of(PROCESSOR)))
engine = await create_web_worker_mlc_engine(
    create_worker(script=script), "Llama-Storyteller-7M-q4f16_1-MLC"
)
reply = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "Tell me a story about a boat."}],
    logprobs=True,
    max_tokens=40,
)
print(reply.choices[0].message.content)
tokens = [entry.token for entry in reply.choices[0].logprobs.content]
print(f"\n{len(tokens)} tokens, {len(set(tokens))} of them different")
