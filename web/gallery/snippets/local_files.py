"""Local files

Run a model whose files you pick on this device, for instance a .gguf; nothing is uploaded.

Section: Models
WebLLM: simple-chat-upload
Docs: sources-and-storage.md gguf.md
"""

import asyncio

from pyscript import document, when

from py_engine import WebWorkerMLCEngine

picker = document.createElement("input")
picker.type = "file"
picker.multiple = True
picker.ariaLabel = "The model's files"
document.body.append(picker)
picked = asyncio.Event()


@when("change", picker)
def _(event):
    picked.set()


print("Pick a .gguf file, or all files of a model.")
await picked.wait()

engine = WebWorkerMLCEngine()
address = await engine.register_local_files("mine", picker.files)
await engine.reload(address)
reply = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "Hello!"}], max_tokens=30
)
print(f"{reply.model}: {reply.choices[0].message.content}")
