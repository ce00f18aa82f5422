"""The chat page: choose and load a model, send messages, show the answer as it is written.

Runs unchanged on MicroPython (the default) and on Pyodide (`?interpreter=py`), see start.mjs.
Also in the address: `model=ID` selects a model, `autoload=1` loads it at once.
"""

import json

import js
from chat_form import listen, start, written
from chat_view import (
    LoadProgress,
    Turn,
    add_model,
    element,
    fill_model_list,
    focus_prompt,
    forget_messages,
    show_error,
    show_notice,
    show_state,
)
from document_dialog import show_document
from models_dialog import (
    close_models_dialog,
    delete_stored,
    open_models_dialog,
    picked_record,
    show_stored,
    written_record,
)
from profile_dialog import open_profile_dialog, show_profile
from pyscript import when
from webgpu_check import gpu_problem

from py_engine.errors import DeviceError, DeviceLostError, MLCError, NetworkError, WorkerError
from py_engine.rpc.client import WebWorkerMLCEngine
from py_engine.rpc.transport_browser import create_worker

WORKER_URL = "./worker/web_worker.mjs?v=__BUILD__"
MODEL_LIST_URL = "./py_engine/model_list.json?v=__BUILD__"


class Chat:
    """What the page knows: the models, the engine, and the conversation."""

    def __init__(self):
        self.state = "booting"
        self.has_gpu = False
        self.records = {}
        self.engine = None
        self.loaded_id = ""
        self.loaded_options = None
        self.local_files = {}  # name and files by model id, of what the visitor picked
        self.progress = None
        self.messages = []
        self.is_stopping = False

    def set_state(self, state, status):
        """Enter a state (booting, ready, loading, loaded, generating, error) and show it."""
        self.state = state
        show_state(state, status)
        is_busy = state in ("booting", "loading", "generating")
        is_loaded = self.is_loaded()
        element("model").disabled = element("more-models").disabled = is_busy
        element("load").textContent = "Cancel" if state == "loading" else "Load"
        element("load").disabled = not self.has_gpu or (
            state != "loading" and (is_busy or is_loaded)
        )
        element("clear").disabled = is_busy or not element("messages").childElementCount
        element("send").disabled = is_busy or not self.has_gpu
        element("profile").disabled = is_busy or not self.loaded_id
        element("welcome").hidden = bool(self.messages) or not element("notice").hidden

    def is_loaded(self):
        """Tell whether the selected model is loaded, with the options in the settings."""
        selected = (element("model").value, load_options())
        return (self.loaded_id, self.loaded_options) == selected

    async def use(self, record):
        """Add a model to the list, unless it is there, select it and load it."""
        model_id = record["model_id"]
        if model_id not in self.records:
            self.records[model_id] = record
            add_model("Chosen here", record)
        element("model").value = model_id
        close_models_dialog()
        await self.load()

    async def show_more_models(self):
        """Open the dialog with models from elsewhere and those stored here."""
        open_models_dialog()
        self.make_engine()
        await show_stored(self.engine)

    async def use_files(self, field):
        """Load the model whose files the visitor picked in an input."""
        if not field.files.length:
            return
        record, name, files = picked_record(field)
        self.local_files[record["model_id"]] = (name, files)
        self.loaded_id = ""
        await self.use(record)

    async def open(self):
        """Check for WebGPU, list the models and start the engine's worker."""
        params = js.URLSearchParams.new(js.location.search)
        records = await fetch_model_list()
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
            config = {"init_progress_callback": lambda report: self.progress.show(report)}
            self.engine = WebWorkerMLCEngine(create_worker(WORKER_URL), config)

    def drop_engine(self):
        """End the worker and all that is loaded in it."""
        if self.engine is not None:
            engine, self.engine = self.engine, None
            engine.terminate()
        self.loaded_id = ""

    async def load(self):
        """Load the selected model; ends in state "loaded" or "error"."""
        model_id, options = element("model").value, load_options()
        element("notice").hidden = True
        self.loaded_id = ""
        self.make_engine()
        engine = self.engine
        self.progress = LoadProgress()
        self.set_state("loading", f"Loading {model_id}…")
        started = js.performance.now()
        try:
            if model_id in self.local_files:
                await engine.register_local_files(*self.local_files[model_id])
            await engine.reload(model_id, options)
        except MLCError as error:
            if engine is self.engine:  # else the visitor cancelled
                self.fail(error, f"{model_id} could not be loaded.")
            return
        self.loaded_id, self.loaded_options = model_id, options
        seconds = (js.performance.now() - started) / 1000
        self.set_state("loaded", f"{model_id} is ready after {seconds:.1f} s.")
        focus_prompt()

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
        text = written()
        if not text:
            return
        if not self.is_loaded():
            await self.load()
            if self.state != "loaded":
                return
        element("prompt").value = ""
        await self.answer(text)

    async def answer(self, text):
        """Add a message of the user's and stream the answer to it into another."""
        self.is_stopping = False
        self.messages.append({"role": "user", "content": text})
        turn = Turn(text)
        self.set_state("generating", f"{self.loaded_id} is writing…")
        try:
            stream = await self.engine.chat.completions.create(**self.request())
            async for chunk in stream:
                turn.answer.take(chunk)
                if self.is_stopping:
                    self.engine.interrupt_generate()
        except MLCError as error:
            self.messages.pop()
            turn.take_back()
            if isinstance(error, (DeviceError, WorkerError)):
                self.fail(error, "The engine failed; load the model again.")
            else:
                show_error(error)
                self.set_state("loaded", "The message could not be answered.")
            return
        turn.answer.finish()
        self.messages.append({"role": "assistant", "content": turn.answer.text})
        self.set_state("loaded", f"{self.loaded_id} is ready.")

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
            focus_prompt()

    async def profile(self):
        """Measure the kernels of the loaded model."""
        engine = self.engine
        try:
            await show_profile(engine)
        except (DeviceLostError, WorkerError) as error:
            if engine is self.engine:  # else the visitor has it no more
                self.fail(error, "The engine failed; load the model again.")

    async def clear(self):
        """Start a new conversation."""
        self.messages = []
        forget_messages()
        self.set_state(self.state, element("status").textContent)
        focus_prompt()
        if self.loaded_id:
            await self.engine.reset_chat()


def load_options():
    """Return the `chat_opts` that the settings ask for."""
    options = {}
    if element("context-window").value:
        options["context_window_size"] = int(element("context-window").value)
    if element("quantization").value:
        options["quantization"] = element("quantization").value
    return options


async def fetch_model_list():
    """Return the records of the models that the engine knows."""
    reply = await js.fetch(MODEL_LIST_URL)
    if not reply.ok:
        raise NetworkError(
            f"{MODEL_LIST_URL} could not be fetched (HTTP {reply.status}); the site is incomplete, "
            "build it again with `python3 build.py site`."
        )
    return json.loads(await reply.text())


chat = Chat()


@when("submit", "#model-form")
def _(event):
    event.preventDefault()
    if chat.state == "loading":
        chat.cancel()
    else:
        start(chat.load())


@when("input", "#model, #context-window, #quantization")
def _(event):
    chat.set_state(chat.state, element("status").textContent)


@when("click", "#more-models")
def _(event):
    start(chat.show_more_models())


@when("click", "#stored")
def _(event):
    if event.target.tagName == "BUTTON":
        start(delete_stored(chat.engine, event.target.value))


@when("submit", "#address-form")
def _(event):
    event.preventDefault()
    start(chat.use(written_record()))


@when("change", "#pick-files, #pick-folder")
def _(event):
    start(chat.use_files(event.target))


@when("click", "#profile")
def _(event):
    open_profile_dialog()


@when("click", "#measure")
def _(event):
    start(chat.profile())


listen(chat)


@when("click", "#suggestions")
def _(event):
    if event.target.tagName == "BUTTON":
        element("prompt").value = event.target.textContent
        focus_prompt()
        start(chat.send())


@when("click", "#model-card")
def _(event):
    event.preventDefault()
    start(show_document(event.currentTarget.href, "Model card"))


try:
    await chat.open()  # noqa: F704 - PyScript runs this file as a coroutine
except Exception as error:
    show_error(error)
    chat.set_state("error", "The page could not start.")
