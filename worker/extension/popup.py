"""The popup: chat with the model in the extension's background worker, or let it read the page.

Runs on MicroPython, and with `?interpreter=py` on Pyodide; popup.mjs starts it.
"""

import json

import js
from chat_form import listen, start, written
from chat_view import (
    LoadProgress,
    Turn,
    add_model,
    element,
    focus_prompt,
    forget_messages,
    show_error,
    show_notice,
    show_state,
)
from pyscript import document, when
from summary import ANSWER_TOKENS, cut_to_fit, summary_messages
from webgpu_check import gpu_problem

from py_engine import AbortController, ExtensionServiceWorkerMLCEngine
from py_engine.errors import AbortError, MLCError

MODEL_LIST_URL = "../../py_engine/model_list.json?v=__BUILD__"
PAGE_TEXT = "worker/extension/page_text.js"
CONTEXT_WINDOW_SIZE = 1024  # where a model's record says nothing
CONVERSATION = "conversation"  # kept until the browser is closed: popups close at every click
MODEL = "model"


class Popup:
    """What the popup knows: the engine, the models and the conversation.

    A turn of the conversation has what was asked (`content`), what is shown of it, and the answer.
    """

    def __init__(self):
        self.engine = None
        self.records = {}
        self.turns = []
        self.progress = None
        self.controller = None  # of what can be stopped: a load or an answer

    def set_state(self, state, status):
        """Enter a state (booting, loading, ready, generating, error) and show it."""
        show_state(state, status)
        is_ready = state == "ready"
        is_generating = state == "generating"
        element("model").disabled = is_generating or self.engine is None
        element("send").disabled = element("summarise").disabled = not is_ready
        element("clear").disabled = is_generating or not self.turns
        element("welcome").hidden = bool(self.turns) or not element("notice").hidden

    def fail(self, error):
        """Show an error; what was loaded before is as good as it was."""
        show_error(error)
        is_loaded = self.engine is not None and self.engine.model_id is not None
        self.set_state("ready" if is_loaded else "error", "Something went wrong.")

    async def open(self):
        """List the models, show the conversation so far, and load the model chosen last."""
        for record in await fetch_model_list():
            self.records[record["model_id"]] = record
            is_own = "://" not in record["model"]
            add_model("In this extension" if is_own else "From huggingface.co", record)
        kept = await js.chrome.storage.local.get(MODEL)
        if getattr(kept, MODEL, None) in self.records:
            element("model").value = getattr(kept, MODEL)
        await self.restore()
        problem = await gpu_problem()
        if problem is not None:
            show_notice(*problem)
            self.set_state("error", problem[0])
            return
        config = {
            "init_progress_callback": self.show_progress,
            "on_disconnect": self.tell_disconnected,
        }
        self.engine = ExtensionServiceWorkerMLCEngine(config)
        await self.load()

    def show_progress(self, report):
        """Show how a load goes, also one before an answer, when the worker was started again."""
        self.progress.show(report)
        element("loading").hidden = report.progress == 1

    def tell_disconnected(self):
        """The browser has ended the worker."""
        if document.documentElement.dataset.state == "ready":
            element("status").textContent = "The engine was stopped; a message starts it again."

    async def load(self):
        """Load the selected model, or find it loaded by another popup."""
        if self.controller is not None:
            self.controller.abort()
        controller = self.controller = AbortController()
        model_id = element("model").value
        element("notice").hidden = True
        self.progress = LoadProgress()
        self.set_state("loading", f"Loading {model_id}…")
        options = {"context_window_size": self.context_window_size(model_id)}
        try:
            await self.engine.reload(model_id, options, signal=controller.signal)
        except AbortError:
            return  # another model was chosen
        await store(js.chrome.storage.local, MODEL, model_id)
        self.set_state("ready", f"{model_id} is ready.")
        focus_prompt()

    def context_window_size(self, model_id):
        """Return for how many tokens a model is loaded."""
        overrides = self.records[model_id].get("overrides") or {}
        return overrides.get("context_window_size", CONTEXT_WINDOW_SIZE)

    async def send(self):
        """Send what is written."""
        text = written()
        if text:
            element("prompt").value = ""
            await self.answer(text, text)

    async def summarise(self):
        """Ask for a summary of the page in the active tab, in a conversation of its own."""
        self.set_state("generating", "Reading the page…")
        title, text = await read_page()
        size = self.context_window_size(element("model").value)
        whole, text = text, await cut_to_fit(self.engine.count_tokens, title, text, size)
        shown = f"Summarise “{title}”"
        if len(text) < len(whole):
            shown += f" (its first {len(text)} of {len(whole)} characters)"
        self.forget()
        await self.answer(summary_messages(title, text)[0]["content"], shown)

    async def answer(self, content, shown):
        """Add a turn and stream the answer to it."""
        kept = {"content": content, "shown": shown, "answer": ""}
        self.turns.append(kept)
        turn = Turn(shown)
        self.controller = AbortController()
        self.set_state("generating", "Writing…")
        reason = None
        try:
            async for chunk in await self.engine.chat.completions.create(**self.request()):
                turn.answer.take(chunk)
        except AbortError:
            reason = "abort"
        except MLCError:
            self.turns.pop()
            turn.take_back()
            raise
        turn.answer.finish(reason)
        kept["answer"] = turn.answer.text
        await store(js.chrome.storage.session, CONVERSATION, json.dumps(self.turns))
        self.set_state("ready", f"{element('model').value} is ready.")
        focus_prompt()

    def request(self):
        """Return the chat request for the last turn."""
        messages = []
        for turn in self.turns:
            messages.append({"role": "user", "content": turn["content"]})
            messages.append({"role": "assistant", "content": turn["answer"]})
        return {
            "messages": messages[:-1],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": ANSWER_TOKENS,
            "signal": self.controller.signal,
        }

    def stop(self):
        """End the answer that is being written; at Escape the popup then does not close."""
        if document.documentElement.dataset.state == "generating" and self.controller is not None:
            self.controller.abort()
            return True
        return False

    async def restore(self):
        """Show the conversation that an earlier popup had."""
        kept = await js.chrome.storage.session.get(CONVERSATION)
        self.turns = json.loads(getattr(kept, CONVERSATION, "[]"))
        for turn in self.turns:
            answer = Turn(turn["shown"]).answer
            answer.text = turn["answer"]
            answer.finish()

    def forget(self):
        """Start a new conversation."""
        self.turns = []
        forget_messages()

    async def clear(self):
        """Start a new conversation, also for the popups to come."""
        self.forget()
        await js.chrome.storage.session.remove(CONVERSATION)
        self.set_state(document.documentElement.dataset.state, element("status").textContent)
        focus_prompt()


async def fetch_model_list():
    """Return the records of the models that the engine knows."""
    return json.loads(await (await js.fetch(MODEL_LIST_URL)).text())


async def read_page():
    """Return the title and the visible text of the page in the active tab."""
    query = js.JSON.parse('{"active": true, "lastFocusedWindow": true}')
    tabs = await js.chrome.tabs.query(query)
    injection = {"target": {"tabId": tabs.at(0).id}, "files": [PAGE_TEXT]}
    results = await js.chrome.scripting.executeScript(js.JSON.parse(json.dumps(injection)))
    page = results.at(0).result
    return page.title, page.text


async def store(area, key, value):
    """Keep a text in one of the extension's areas of storage."""
    await area.set(js.JSON.parse(json.dumps({key: value})))


popup = Popup()


@when("change", "#model")
def _(event):
    start(popup.load(), popup.fail)


@when("submit", "#model-form")
def _(event):
    event.preventDefault()


@when("click", "#summarise")
def _(event):
    start(popup.summarise(), popup.fail)


listen(popup, popup.fail)


try:
    await popup.open()  # noqa: F704 - it is run as a coroutine
except Exception as error:
    popup.fail(error)
