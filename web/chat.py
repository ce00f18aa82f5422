"""The chat page: choose and load a model, send messages, show the answer as it is written.

Runs unchanged on MicroPython (the default) and on Pyodide (`?interpreter=py`), see start.mjs.
Also in the address: `model=ID` selects a model, `autoload=1` loads it at once.
"""

import asyncio
import json

import js
from pyscript import document, when

from py_engine.errors import DeviceError, MLCError, WorkerError
from py_engine.rpc.client import WebWorkerMLCEngine
from py_engine.rpc.transport_browser import create_worker

WORKER_URL = "./worker/web_worker.mjs?v=__BUILD__"
MODEL_LIST_URL = "./py_engine/model_list.json?v=__BUILD__"
RENDER_INTERVAL_MS = 40
PINNED_PX = 60  # so close to the end, the conversation keeps scrolling with the answer

NO_WEBGPU = (
    "Chrome or Edge: version 113 or newer on Windows, macOS and ChromeOS, 121 on Android. On Linux "
    "turn on “Unsafe WebGPU Support” at chrome://flags/#enable-unsafe-webgpu.",
    "Safari: version 26 or newer.",
    "Firefox: version 141 or newer on Windows, 145 on Macs with Apple silicon; elsewhere set "
    "dom.webgpu.enabled to true at about:config.",
)
NO_ADAPTER = (
    "Turn on hardware acceleration in the browser's settings (“Use graphics acceleration when "
    "available”) and start the browser again.",
    "Update the graphics driver; chrome://gpu tells whether the browser blocks the present one.",
    "On Linux turn on Vulkan at chrome://flags/#enable-vulkan.",
)
INSECURE = (
    "Open it at https:// or, on this machine, at http://localhost/: browsers give WebGPU only to "
    "pages whose connection is secure.",
)


def element(name):
    """Return the page's element with this id."""
    return document.getElementById(name)


def add(parent, tag, text="", class_name=""):
    """Append a new element with plain text to `parent` and return it."""
    child = document.createElement(tag)
    child.textContent = text
    if class_name:
        child.className = class_name
    parent.append(child)
    return child


running = []  # tasks; an event loop keeps only weak references


def start(coroutine):
    """Run a coroutine from an event handler; what goes wrong in it shows on the page."""

    async def run():
        try:
            await coroutine
        except Exception as error:
            show_error(error)
        finally:
            running.remove(task)

    task = asyncio.create_task(run())
    running.append(task)


class Chat:
    """What the page knows: the models, the engine, and the conversation."""

    def __init__(self):
        self.state = "booting"
        self.has_gpu = False
        self.records = {}
        self.engine = None
        self.loaded_id = ""
        self.messages = []
        self.is_stopping = False

    def set_state(self, state, status):
        """Enter a state (booting, ready, loading, loaded, generating, error) and show it."""
        self.state = state
        document.documentElement.dataset.state = state
        element("status").textContent = status
        is_busy = state in ("booting", "loading", "generating")
        is_loaded = self.loaded_id == element("model").value
        element("model").disabled = is_busy
        element("load").textContent = "Cancel" if state == "loading" else "Load"
        element("load").disabled = not self.has_gpu or (
            state != "loading" and (is_busy or is_loaded)
        )
        element("clear").disabled = is_busy or not element("messages").childElementCount
        element("send").disabled = is_busy or not self.has_gpu
        element("send").hidden = state == "generating"
        element("stop").hidden = state != "generating"
        element("loading").hidden = state != "loading"
        element("welcome").hidden = bool(self.messages) or not element("notice").hidden

    async def open(self):
        """Check for WebGPU, list the models and start the engine's worker."""
        params = js.URLSearchParams.new(js.location.search)
        reply = await js.fetch(MODEL_LIST_URL)
        records = json.loads(await reply.text())
        self.records = {record["model_id"]: record for record in records}
        fill_model_list(records)
        if params.has("model") and params.get("model") in self.records:
            element("model").value = params.get("model")
        problem = await gpu_problem()
        if problem is not None:
            show_notice(*problem)
            self.set_state("error", problem[0])
            return
        self.has_gpu = True
        self.make_engine()
        self.set_state("ready", "Load a model, or write a message: the model loads by itself.")
        if params.has("autoload"):
            await self.load()

    def make_engine(self):
        """Start a worker, which boots Python meanwhile, unless there is one."""
        if self.engine is None:
            config = {"init_progress_callback": show_progress}
            self.engine = WebWorkerMLCEngine(create_worker(WORKER_URL), config)

    def drop_engine(self):
        """End the worker and all that is loaded in it."""
        if self.engine is not None:
            engine, self.engine = self.engine, None
            engine.terminate()
        self.loaded_id = ""

    async def load(self):
        """Load the selected model; ends in state "loaded" or "error"."""
        model_id = element("model").value
        element("notice").hidden = True
        self.loaded_id = ""
        self.make_engine()
        engine = self.engine
        self.set_state("loading", f"Loading {model_id}…")
        element("progress").removeAttribute("value")
        element("progress-text").textContent = "Starting the engine"
        started = js.performance.now()
        try:
            await engine.reload(model_id)
        except MLCError as error:
            if engine is self.engine:  # else the visitor cancelled
                self.fail(error, f"{model_id} could not be loaded.")
            return
        self.loaded_id = model_id
        seconds = (js.performance.now() - started) / 1000
        self.set_state("loaded", f"{model_id} is ready after {seconds:.1f} s.")

    def cancel(self):
        """Stop loading."""
        self.drop_engine()
        self.set_state("ready", "Loading was cancelled.")
        self.make_engine()

    def fail(self, error, status):
        """Show an error after which the model must be loaded again."""
        if isinstance(error, WorkerError):
            self.drop_engine()
        self.loaded_id = ""
        show_error(error)
        self.set_state("error", status)

    async def send(self):
        """Send what is written, loading the selected model first if need be."""
        text = element("prompt").value.strip()
        if not text or element("send").disabled:
            return
        if self.loaded_id != element("model").value:
            await self.load()
            if self.state != "loaded":
                return
        element("prompt").value = ""
        await self.answer(text)

    async def answer(self, text):
        """Add a message of the user's and stream the answer to it into another."""
        self.is_stopping = False
        element("notice").hidden = True
        element("stats").textContent = ""
        self.messages.append({"role": "user", "content": text})
        question, answer = add_message("user", text), Answer()
        self.set_state("generating", f"{self.loaded_id} is writing…")
        try:
            stream = await self.engine.chat.completions.create(**self.request())
            async for chunk in stream:
                answer.take(chunk)
                if self.is_stopping:
                    self.engine.interrupt_generate()
        except MLCError as error:
            self.take_back(question, answer)
            if isinstance(error, (DeviceError, WorkerError)):
                self.fail(error, "The engine failed; load the model again.")
            else:
                show_error(error)
                self.set_state("loaded", "The message could not be answered.")
            return
        answer.finish()
        self.messages.append({"role": "assistant", "content": answer.text})
        self.set_state("loaded", f"{self.loaded_id} is ready.")

    def take_back(self, question, answer):
        """Remove a question that failed; it can be sent again from the field."""
        content = self.messages.pop()["content"]
        element("prompt").value = element("prompt").value or content
        question.remove()
        answer.remove()

    def request(self):
        """Return the chat request with what the settings say."""
        request = {
            "messages": self.messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if element("max-tokens").value:
            request["max_tokens"] = int(element("max-tokens").value)
        if element("temperature").value:
            request["temperature"] = float(element("temperature").value)
        return request

    def stop(self):
        """End the answer that is being written; the text so far stays."""
        if self.state == "generating":
            self.is_stopping = True
            self.engine.interrupt_generate()
            element("prompt").focus()

    async def clear(self):
        """Start a new conversation."""
        self.messages = []
        element("messages").replaceChildren()
        element("notice").hidden = True
        element("stats").textContent = ""
        self.set_state(self.state, element("status").textContent)
        element("prompt").focus()
        if self.loaded_id:
            await self.engine.reset_chat()


class Answer:
    """One answer on the page while it grows."""

    def __init__(self):
        self.text = ""
        self._finish_reason = None
        self._rendered_at = 0
        self._element = add_message("assistant", "")
        self._element.setAttribute("aria-busy", "true")

    def take(self, chunk):
        """Add a chunk's text, or show its statistics."""
        for choice in chunk.choices:
            self.text += choice.delta.content or ""
            self._finish_reason = choice.finish_reason or self._finish_reason
        if chunk.usage is not None:
            element("stats").textContent = statistics(chunk.usage)
        now = js.performance.now()
        if now - self._rendered_at >= RENDER_INTERVAL_MS:
            self._rendered_at = now
            self._render()

    def finish(self):
        """Show the whole answer, and why it ended if not by itself."""
        self._render()
        self._element.setAttribute("aria-busy", "false")
        notes = {"abort": "Stopped.", "length": "Ended at the limit of tokens."}
        if self._finish_reason in notes:
            add(self._element, "p", notes[self._finish_reason], "cut-off")
        keep_at_end(True)

    def remove(self):
        """Take the answer off the page."""
        self._element.remove()

    def _render(self):
        was_at_end = is_at_end()
        js.renderMarkdown(self._element, self.text)
        keep_at_end(was_at_end)


async def gpu_problem():
    """Return (title, remedies) when there is no WebGPU here, else None."""
    if not js.isSecureContext:
        return "This page was opened without a secure connection.", INSECURE
    gpu = getattr(js.navigator, "gpu", None)
    if not hasattr(gpu, "requestAdapter"):
        return "This browser has no WebGPU, which the model needs to compute.", NO_WEBGPU
    if not hasattr(await gpu.requestAdapter(), "limits"):
        return "This browser has WebGPU, but offers no graphics adapter.", NO_ADAPTER
    return None


def fill_model_list(records):
    """List the site's own models first, then those that are downloaded from elsewhere."""
    groups = (
        ("On this site", [r for r in records if "://" not in r["model"]]),
        ("Downloaded from huggingface.co", [r for r in records if "://" in r["model"]]),
    )
    for label, members in groups:
        group = add(element("model"), "optgroup")
        group.label = label
        for record in members:
            size = record.get("vram_required_MB")
            name = record["model_id"].replace("-MLC", "")
            text = f"{name} · {size:.0f} MB" if size else name
            add(group, "option", text).value = record["model_id"]


def add_message(role, text):
    """Append a message to the conversation and return its element."""
    message = add(element("messages"), "div", text, f"message {role}")
    if role == "assistant":
        message.classList.add("markdown")
    keep_at_end(True)
    return message


def is_at_end():
    """Tell whether the page is scrolled to its end."""
    page = document.documentElement
    return page.scrollHeight - page.scrollTop - page.clientHeight < PINNED_PX


def keep_at_end(wanted):
    """Scroll the page to its end if `wanted`."""
    if wanted:
        document.documentElement.scrollTop = document.documentElement.scrollHeight


def show_progress(report):
    """Show how far loading has come: bytes, rate and seconds while weights load."""
    element("progress").value = report.progress
    seconds = report.timeElapsed
    total = report.get("totalBytes")
    if not total:
        element("progress-text").textContent = f"{report.text} · {seconds:.1f} s"
        return
    loaded = report["loadedBytes"]
    rate = loaded / seconds if seconds else 0
    amounts = f"{loaded / 1e6:.1f} of {total / 1e6:.1f} MB · {rate / 1e6:.1f} MB/s"
    element("progress-text").textContent = f"{amounts} · {seconds:.1f} s"


def statistics(usage):
    """Return the line under the conversation: times, speeds and counts of the last answer."""
    extra = usage.extra or {}
    parts = []
    if extra.get("time_to_first_token_s") is not None:
        parts.append(f"first token after {extra['time_to_first_token_s']:.2f} s")
    if extra.get("prefill_tokens_per_s"):
        parts.append(f"prefill {extra['prefill_tokens_per_s']:.1f} tokens/s")
    if extra.get("decode_tokens_per_s"):
        parts.append(f"decode {extra['decode_tokens_per_s']:.1f} tokens/s")
    parts.append(f"{usage.prompt_tokens} tokens read, {usage.completion_tokens} written")
    return " · ".join(parts)


def show_notice(title, lines):
    """Show a problem and what can be done about it."""
    notice = element("notice")
    notice.replaceChildren()
    add(notice, "h2", title)
    holder = add(notice, "ul") if len(lines) > 1 else notice
    for line in lines:
        add(holder, "li" if len(lines) > 1 else "p", line)
    notice.hidden = False
    element("welcome").hidden = True
    keep_at_end(True)


def show_error(error):
    """Show an exception: its class as title, its text, which says what to do."""
    name = getattr(error, "name", None) or type(error).__name__
    show_notice(name, (str(error),))
    js.console.error(f"{name}: {error}\n{getattr(error, 'remote_traceback', '')}")


chat = Chat()


@when("submit", "#model-form")
def _(event):
    event.preventDefault()
    if chat.state == "loading":
        chat.cancel()
    else:
        start(chat.load())


@when("change", "#model")
def _(event):
    chat.set_state(chat.state, element("status").textContent)


@when("submit", "#chat-form")
def _(event):
    event.preventDefault()
    start(chat.send())


@when("keydown", "#prompt")
def _(event):
    if event.key == "Enter" and not event.shiftKey and not event.isComposing:
        event.preventDefault()
        start(chat.send())


@when("keydown", document)
def _(event):
    if event.key == "Escape":
        chat.stop()


@when("click", "#stop")
def _(event):
    chat.stop()


@when("click", "#clear")
def _(event):
    start(chat.clear())


@when("click", "#suggestions")
def _(event):
    if event.target.tagName == "BUTTON":
        element("prompt").value = event.target.textContent
        element("prompt").focus()
        start(chat.send())


@when("click", "#model-card")
def _(event):
    event.preventDefault()
    start(show_model_card(event.currentTarget.href))


async def show_model_card(url):
    """Show the embedded model's card in a dialog."""
    reply = await js.fetch(url)
    text = await reply.text() if reply.ok else f"The model card is missing at {url}."
    if text.startswith("---\n"):  # metadata for model hubs
        text = text.split("\n---\n", 1)[-1]
    js.renderMarkdown(element("card-text"), text)
    element("card-dialog").showModal()


await chat.open()  # noqa: F704 - PyScript runs this file as a coroutine
