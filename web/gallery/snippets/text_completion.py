"""Text completion

Continue a text as it is, without a chat template, and look at what else could have come next.

Section: First steps
WebLLM: text-completion
Docs: api.md
"""

import math

from py_engine import create_web_worker_mlc_engine

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")

reply = await engine.completions.create(
    prompt="Once upon a time, there was a", echo=True, n=2, max_tokens=20
)
for choice in reply.choices:
    print(f"{choice.index}: {choice.text}\n")

reply = await engine.completions.create(prompt="The little girl was very", max_tokens=1, logprobs=5)
for likely in reply.choices[0].logprobs.content[0].top_logprobs:
    print(f"{100 * math.exp(likely.logprob):5.1f} % {likely.token!r}")
