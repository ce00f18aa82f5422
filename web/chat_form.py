"""The form in which a visitor writes: what its keys and buttons do, and the tasks they start.

Of the chat page and of the extension's popup; runs on MicroPython and on Pyodide.
"""

import asyncio

from chat_view import element, show_error
from pyscript import document, when

running = []  # tasks; an event loop keeps only weak references


def start(coroutine, fail=show_error):
    """Run a coroutine from an event handler; `fail` is told what goes wrong in it."""

    async def run():
        try:
            await coroutine
        except Exception as error:
            fail(error)
        finally:
            running.remove(task)

    task = asyncio.create_task(run())
    running.append(task)


def written():
    """Return what is written; "" when it cannot be sent."""
    return "" if element("send").disabled else element("prompt").value.strip()


def listen(chat, fail=show_error):
    """Let the form act on `chat`: `send()` and `clear()`, which are coroutines, and `stop()`.

    When `stop()` returns True, the browser does nothing of its own at Escape.
    """

    @when("submit", "#chat-form")
    def _(event):
        event.preventDefault()
        start(chat.send(), fail)

    @when("keydown", "#prompt")
    def _(event):
        if event.key == "Enter" and not event.shiftKey and not event.isComposing:
            event.preventDefault()
            start(chat.send(), fail)

    @when("keydown", document)
    def _(event):
        if event.key == "Escape" and chat.stop():
            event.preventDefault()

    @when("click", "#stop")
    def _(event):
        chat.stop()

    @when("click", "#clear")
    def _(event):
        start(chat.clear(), fail)
