"""A dialog that shows documents of the site, written in Markdown: the model card, pages of docs/.

Runs on MicroPython and on Pyodide.
"""

import js
from chat_view import element


async def show_document(url, title):
    """Open the document at `url` in the dialog."""
    reply = await js.fetch(url)
    text = await reply.text() if reply.ok else f"There is no document at {url}."
    if text.startswith("---\n"):  # metadata for model hubs
        text = text.split("\n---\n", 1)[-1]
    element("document-title").textContent = title
    js.renderMarkdown(element("document-text"), text, url)
    element("document-dialog").showModal()
