"""Multi-round chat

Send the whole conversation each time; what the model has read already is not computed again.

Section: First steps
WebLLM: multi-round-chat
Docs: api.md context-windows.md
"""

from py_engine import create_web_worker_mlc_engine

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")

messages = [{"role": "system", "content": "You are a friendly little model."}]
for question in ("Hello! My name is Tom.", "What is the opposite of hot?", "And who are you?"):
    messages.append({"role": "user", "content": question})
    reply = await engine.chat.completions.create(messages=messages, max_tokens=30)
    messages.append(reply.choices[0].message)

    prompt, cached = reply.usage.prompt_tokens, reply.usage.prompt_tokens_details.cached_tokens
    print(f"> {question}\n{reply.choices[0].message.content}")
    print(f"(prompt of {prompt} tokens, {cached} of them known from before)\n")
