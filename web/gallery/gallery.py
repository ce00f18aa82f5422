"""The gallery: cards of all snippets, or with `?snippet=NAME` one to run and to edit.

`&type=py` chooses Pyodide for it. Runs on MicroPython and on Pyodide, see ../start.mjs.
"""

import json

import js
from chat_view import add, element
from code_editor import CodeEditor
from document_dialog import show_document
from pyscript import document, when

SNIPPETS_URL = "./snippets.json?v=__BUILD__"
SNIPPET_URL = "./snippets/{}.py?v=__BUILD__"
FRAME_URL = "./frame.html?v=__BUILD__"
DOCUMENT_URL = "../docs/{}"
EXAMPLE_URL = "https://github.com/mlc-ai/web-llm/tree/main/examples/{}"


def set_state(state, status):
    """Enter a state (booting, ready, running, done, failed, stopped, error) and show it."""
    document.documentElement.dataset.state = state
    element("status").textContent = status
    element("stop").disabled = state != "running"
    if state != "running":
        element("loading").hidden = True


async def fetch_text(url):
    """Return the text of a file of the site."""
    reply = await js.fetch(url)
    if not reply.ok:
        raise ValueError(f"{url} could not be fetched (HTTP {reply.status}).")
    return await reply.text()


def show_cards(sections):
    """Show a card for each snippet, by sections."""
    for section in sections:
        add(element("cards"), "h2", section["title"])
        cards = add(element("cards"), "ul")
        for snippet in section["snippets"]:
            link = add(add(cards, "li"), "a")
            link.href = "?snippet=" + snippet["name"]
            add(link, "strong", snippet["title"])
            add(link, "span", snippet["description"])
    element("cards").hidden = False
    set_state("ready", "")


class SnippetPage:
    """A snippet on the page: its code in the editor, and the frame in which it runs."""

    def __init__(self, snippet, code, kind):
        self._snippet = snippet
        self._original = code
        self._frame = None
        self._started = 0
        kinds = snippet["types"]
        element("kind").value = kind if kind in kinds else kinds[0]
        for option in element("kind").options:
            option.disabled = option.hidden = option.value not in kinds
        element("code").value = code

    def show(self, neighbours):
        """Show it, with links to the snippets before and after it (None at an end)."""
        title = self._snippet["title"]
        document.title = title + " · PyWebLLM"
        element("title").textContent = title
        element("description").textContent = self._snippet["description"]
        self._show_links()
        before, after = neighbours
        _add_neighbour("← {}", before)
        _add_neighbour("{} →", after)
        element("snippet").hidden = False
        set_state("ready", "Ready")

    def run(self):
        """Run what is in the editor, in a new frame: nothing is left of an earlier run."""
        self._started = js.performance.now()
        frame = self._frame = document.createElement("iframe")
        frame.title = "Output"
        frame.dataset.source = element("code").value
        frame.dataset.kind = element("kind").value
        frame.src = FRAME_URL
        when("progress", frame)(lambda event: self._show_progress(event.detail))
        when("done", frame)(lambda event: self._end("done", "Done"))
        when("failed", frame)(lambda event: self._end("failed", "Failed"))
        element("output").replaceChildren(frame)
        element("output").scrollIntoView(js.JSON.parse('{"block": "nearest"}'))
        set_state("running", "Running…")

    def stop(self):
        """End the snippet and its workers; what it has printed stays."""
        if document.documentElement.dataset.state != "running":
            return
        shown = self._frame.contentDocument.documentElement.outerHTML
        self._frame.removeAttribute("data-source")
        self._frame.srcdoc = shown
        self._end("stopped", "Stopped")

    def reset(self):
        """Put the snippet's own code back into the editor."""
        element("code").value = self._original
        self.mark_changed()

    def mark_changed(self):
        """Let the code be reset if it was edited."""
        element("reset").disabled = element("code").value == self._original

    def _show_links(self):
        links = element("links")
        for name in self._snippet["docs"]:
            link = add(links, "a", "docs/" + name)
            link.href = DOCUMENT_URL.format(name)
            link.className = "document"
        for name in self._snippet["webllm"]:
            link = add(links, "a", "WebLLM: " + name)
            link.href = EXAMPLE_URL.format(name)
            link.target = "_blank"
            link.rel = "noopener noreferrer"

    def _show_progress(self, report):
        is_running = document.documentElement.dataset.state == "running"
        element("loading").hidden = report.progress == 1 or not is_running
        element("progress").value = report.progress
        element("progress-text").textContent = report.text

    def _end(self, state, word):
        seconds = (js.performance.now() - self._started) / 1000
        set_state(state, f"{word} after {seconds:.1f} s.")


def _add_neighbour(text, snippet):
    link = add(element("neighbours"), "a")
    if snippet is not None:
        link.textContent = text.format(snippet["title"])
        link.href = "?snippet=" + snippet["name"]


def listen(page):
    """Let the page's controls act on a snippet."""
    editor = CodeEditor(element("code"))

    @when("click", "#run")
    def _(event):
        page.run()

    @when("click", "#stop")
    def _(event):
        page.stop()

    @when("click", "#reset")
    def _(event):
        page.reset()

    @when("input", "#code")
    def _(event):
        page.mark_changed()

    @when("keydown", "#code")
    def _(event):
        editor.take_key(event)

    @when("keydown", document)
    def _(event):
        if event.key == "Enter" and (event.ctrlKey or event.metaKey):
            event.preventDefault()
            page.run()

    @when("click", document)
    async def _(event):
        link = event.target.closest("a.document, #document-text a[href$='.md']")
        if link:
            event.preventDefault()
            await show_document(link.href, link.textContent)


async def open_page():
    """Show what the address asks for."""
    sections = json.loads(await fetch_text(SNIPPETS_URL))
    params = js.URLSearchParams.new(js.location.search)
    name = params.get("snippet")
    snippets = [snippet for section in sections for snippet in section["snippets"]]
    names = [snippet["name"] for snippet in snippets]
    if name not in names:
        show_cards(sections)
        return
    place = names.index(name)
    source = await fetch_text(SNIPPET_URL.format(name))
    code = source.split('"""', 2)[2].lstrip()  # after the header, which the page shows itself
    page = SnippetPage(snippets[place], code, params.get("type"))
    around = [None] + snippets + [None]  # noqa: RUF005  MicroPython
    page.show((around[place], around[place + 2]))
    listen(page)


try:
    await open_page()  # noqa: F704 - PyScript runs this file as a coroutine
except Exception as error:
    set_state("error", f"The page could not start: {error}")
    raise
