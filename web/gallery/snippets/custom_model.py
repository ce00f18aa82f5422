"""Custom model

A model from any address, with options of your own in its record.

Section: Models
WebLLM: get-started
Docs: sources-and-storage.md context-windows.md
"""

from py_engine import create_web_worker_mlc_engine

record = {
    # Here a folder of this site; also "hf:owner/name", or the URL of a folder or a .gguf file.
    "model": "models/Llama-Storyteller-7M-q4f16_1-MLC/",
    "model_id": "my-model",
    "overrides": {"context_window_size": 128, "temperature": 0.2},
}
engine = await create_web_worker_mlc_engine(
    model_id="my-model", engine_config={"app_config": {"model_list": [record]}}
)
reply = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "Tell me a long, long story about a whale."}]
)
print(reply.choices[0].message.content)
print(f"\n{reply.model} ended with {reply.choices[0].finish_reason!r}: its context window was full")
print(f"after {reply.usage.total_tokens} tokens of question and answer.")
