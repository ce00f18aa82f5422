"""The chat page: with the embedded model, and in every state with a scripted engine in its worker.

The scripted engine (tests/support) repeats what it is told, so that what the page does is exact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.conftest import RecordingServer
from tests.support.extent import PAGE_INTERPRETERS

PAGES = Path(__file__).parent / "pages"
MODELS = [
    {"model": "models/some/", "model_id": "some-model", "vram_required_MB": 16},
    {"model": "models/missing/", "model_id": "missing"},
    {"model": "https://huggingface.co/owner/far", "model_id": "far-q4f16_1-MLC"},
]
Opens = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, session_server: RecordingServer) -> Iterator[Opens]:
    """Return a function that opens the chat page, by default with the scripted worker.

    `worker` is a file in pages/ that stands in for the engine's worker, or None for the real one;
    `before` is JavaScript that runs first, `asked` collects the URLs of all requests; other
    options are the context's.
    """
    contexts = []

    def open_it(
        address: str = "/",
        worker: str | None = "scripted_worker.mjs",
        before: str = "",
        asked: list[str] | None = None,
        **options: Any,
    ) -> Page:
        context = browser.new_context(base_url=session_server.url, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.add_init_script(before)
        if asked is not None:
            context.on("request", lambda request: asked.append(request.url))
        if worker is not None:
            script = PAGES / worker
            page.route("**/worker/web_worker.mjs*", lambda route: answer_with(route, script))
            page.route("**/model_list.json*", lambda route: route.fulfill(json=MODELS))
        page.goto(address)
        return page

    yield open_it
    for context in contexts:
        context.close()


def answer_with(route: Route, script: Path) -> None:
    route.fulfill(path=script, content_type="text/javascript")


def reach(page: Page, state: str) -> None:
    expect(page.locator("html")).to_have_attribute("data-state", state, timeout=60_000)


def say(page: Page, text: str) -> None:
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def test_the_embedded_model_answers(open_page: Opens) -> None:
    asked: list[str] = []
    page = open_page("/?autoload=1", worker=None, asked=asked)
    reach(page, "loaded")
    page.click("#settings summary")
    page.fill("#max-tokens", "24")
    say(page, "Tell me a story about a fox.")
    reach(page, "generating")
    reach(page, "loaded")
    answer = page.locator(".message.assistant")
    assert len(answer.inner_text().split()) > 8
    expect(answer).to_contain_text("Ended at the limit of tokens.")
    stats = page.inner_text("#stats")
    assert re.fullmatch(
        r"first token after [\d.]+ s · prefill [\d.]+ tokens/s · decode [\d.]+ tokens/s · "
        r"\d+ tokens read, 24 written",
        stats,
    )
    origin = page.evaluate("location.origin")
    assert any("/models/" in url for url in asked)
    assert [url for url in asked if not url.startswith(origin)] == []
    page.click("#more-models")
    stored = page.locator("#stored li")
    expect(stored).to_contain_text("Llama-Storyteller-7M-q4f16_1-MLC")
    stored.get_by_role("button").click()
    expect(page.locator("#stored-note")).to_have_text("Nothing yet.")
    page.keyboard.press("Escape")
    asked.clear()
    page.fill("#context-window", "256")
    page.click("#load")
    reach(page, "loading")
    reach(page, "loaded")
    assert any("/models/" in url for url in asked)


@pytest.mark.parametrize("interpreter", ["mpy", "py"])
def test_a_conversation(open_page: Opens, interpreter: str) -> None:
    page = open_page(f"/?interpreter={interpreter}")
    reach(page, "ready")
    assert page.evaluate("document.querySelector('script[config]').type") == interpreter
    say(page, "hello *there*")
    reach(page, "loading")
    reach(page, "loaded")
    expect(page.locator(".message.user")).to_have_text("hello *there*")
    expect(page.locator(".message.assistant em")).to_have_text("there")
    expect(page.locator("#prompt")).to_have_value("")
    expect(page.locator("#prompt")).to_be_focused()
    expect(page.locator("#stats")).to_have_text(
        "first token after 0.25 s · decode 40.0 tokens/s · 7 tokens read, 2 written"
    )
    page.fill("#prompt", "again")
    page.click("#send")
    expect(page.locator(".message")).to_have_count(4)
    reach(page, "loaded")
    page.click("#clear")
    expect(page.locator(".message")).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#clear")).to_be_disabled()


def test_the_model_list_has_the_sites_own_models_first(open_page: Opens) -> None:
    page = open_page("/?model=far-q4f16_1-MLC")
    reach(page, "ready")
    expect(page.locator("#model")).to_have_value("far-q4f16_1-MLC")
    labels = page.locator("#model optgroup").evaluate_all("groups => groups.map(g => g.label)")
    assert labels == ["On this site", "Downloaded from huggingface.co"]
    options = page.locator("#model option").all_inner_texts()
    assert options == ["some-model · 16 MB", "missing", "far-q4f16_1"]


def test_progress_shows_bytes_rate_and_seconds(open_page: Opens) -> None:
    # The reports that the page shows, kept by an observer: they follow each other quickly.
    keep = """addEventListener('DOMContentLoaded', () => {
        globalThis.seen = [];
        const text = document.getElementById('progress-text');
        new MutationObserver(() => seen.push(text.textContent))
            .observe(text, { childList: true, characterData: true, subtree: true });
    })"""
    page = open_page("/?autoload=1", before=keep)
    reach(page, "loaded")
    assert page.evaluate("seen") == [
        "Starting the engine",
        "Downloading 0.0 of 8.0 MB · 0.0 s",
        "Downloading 4.0 of 8.0 MB · 8.0 MB/s · 0.5 s left · 0.5 s",
        "Downloading 8.0 of 8.0 MB · 8.0 MB/s · 1.0 s",
    ]
    expect(page.locator("#status")).to_have_text(
        re.compile(r"some-model is ready after [\d.]+ s\.")
    )
    expect(page.locator("#loading")).to_be_hidden()
    expect(page.locator("#load")).to_be_disabled()


@pytest.mark.parametrize("interpreter", PAGE_INTERPRETERS)
def test_a_model_from_an_address(open_page: Opens, interpreter: str) -> None:
    page = open_page(f"/?interpreter={interpreter}")
    reach(page, "ready")
    page.focus("#more-models")
    page.keyboard.press("Enter")
    expect(page.locator("#address")).to_be_focused()
    page.keyboard.type("owner/name@v2")
    page.keyboard.press("Enter")
    reach(page, "loaded")
    expect(page.locator("#models-dialog")).to_be_hidden()
    expect(page.locator("#status")).to_have_text(re.compile("owner/name@v2 is ready"))
    chosen = page.locator("#model optgroup[label='Chosen here'] option")
    expect(chosen).to_have_text(["owner/name@v2"])
    expect(page.locator("#model")).to_have_value("owner/name@v2")
    page.select_option("#model", "some-model")
    page.click("#more-models")
    page.fill("#address", "owner/name@v2")
    page.press("#address", "Enter")
    expect(page.locator("#status")).to_have_text(re.compile("owner/name@v2 is ready"))
    expect(chosen).to_have_count(1)


@pytest.mark.parametrize("interpreter", PAGE_INTERPRETERS)
def test_a_model_of_files_on_this_device(
    open_page: Opens, interpreter: str, tmp_path: Path
) -> None:
    page = open_page(f"/?interpreter={interpreter}")
    reach(page, "ready")
    page.click("#more-models")
    file = {"name": "tiny.gguf", "mimeType": "application/octet-stream", "buffer": b"GGUF"}
    page.set_input_files("#pick-files", [file])
    reach(page, "loaded")
    expect(page.locator("#status")).to_have_text(re.compile("local:tiny.gguf is ready"))
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    page.click("#more-models")
    page.set_input_files("#pick-folder", folder)
    expect(page.locator("#status")).to_have_text(re.compile("local:my-model is ready"))
    say(page, "hello")
    expect(page.locator(".message.assistant")).to_have_text("hello")


@pytest.mark.parametrize("interpreter", PAGE_INTERPRETERS)
def test_stored_models_are_listed_and_deleted(open_page: Opens, interpreter: str) -> None:
    page = open_page(f"/?interpreter={interpreter}")
    reach(page, "ready")
    page.click("#more-models")
    rows, note = page.locator("#stored li"), page.locator("#stored-note")
    expect(rows).to_have_text(
        ["some-model8.0 MBDelete", "https://example.org/other/3.0 of 8.0 MBDelete"]
    )
    expect(note).to_have_text("11.0 MB in all.")
    page.get_by_role("button", name="Delete some-model").press("Enter")
    expect(rows).to_have_count(1)
    expect(note).to_have_text("3.0 MB in all.")
    page.get_by_role("button", name="Delete https://example.org/other/").click()
    expect(note).to_have_text("https://example.org/other/ is being downloaded in another tab.")
    expect(rows).to_have_count(1)
    expect(page.locator("#address")).to_be_focused()


def test_options_of_loading(open_page: Opens) -> None:
    page = open_page("/?autoload=1")
    reach(page, "loaded")
    expect(page.locator("#load")).to_be_disabled()
    page.click("#settings summary")
    page.fill("#context-window", "512")
    page.select_option("#quantization", "q4f16_1")
    expect(page.locator("#load")).to_be_enabled()
    say(page, "OPTIONS")  # loads again first
    expect(page.locator(".message.assistant")).to_contain_text("}")
    answer = json.loads(page.inner_text(".message.assistant"))
    assert answer == [{"context_window_size": 512, "quantization": "q4f16_1"}]
    expect(page.locator("#load")).to_be_disabled()


def test_enter_sends_and_shift_enter_starts_a_line(open_page: Opens) -> None:
    page = open_page("/?autoload=1")
    reach(page, "loaded")
    page.focus("#prompt")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(page.locator("#prompt")).to_have_value("one\ntwo")
    page.keyboard.press("Enter")
    expect(page.locator(".message.user")).to_have_text("one\ntwo", use_inner_text=True)
    page.keyboard.press("Enter")  # nothing to send
    reach(page, "loaded")
    expect(page.locator(".message")).to_have_count(2)


@pytest.mark.parametrize("how", ["button", "escape"])
def test_an_answer_can_be_stopped(open_page: Opens, how: str) -> None:
    page = open_page("/?autoload=1")
    reach(page, "loaded")
    say(page, "word " * 5000)
    reach(page, "generating")
    expect(page.locator("#send")).to_be_hidden()
    expect(page.locator(".message.assistant")).to_contain_text("word word")
    expect(page.locator(".message.assistant")).to_have_attribute("aria-busy", "true")
    if how == "button":
        page.click("#stop")
    else:
        page.keyboard.press("Escape")
    reach(page, "loaded")
    expect(page.locator(".message.assistant .cut-off")).to_have_text("Stopped.")
    expect(page.locator(".message.assistant")).to_have_attribute("aria-busy", "false")
    assert page.locator(".message.assistant").inner_text().count("word") < 5000
    expect(page.locator("#prompt")).to_be_focused()
    say(page, "next")
    expect(page.locator(".message.assistant").last).to_have_text("next")


def test_answers_are_shown_as_safe_markdown(open_page: Opens) -> None:
    asked: list[str] = []
    page = open_page("/?autoload=1", asked=asked)
    reach(page, "loaded")
    asked.clear()
    say(
        page,
        "**bold** `code` [text](https://example.org/) [bad](javascript:globalThis.hit=1) "
        "![x](https://example.org/x.png) <img src=y onerror=globalThis.hit=1> "
        "<script>globalThis.hit=1</script> <b style=background:url(//z)>b</b>",
    )
    reach(page, "loaded")
    answer = page.locator(".message.assistant")
    expect(answer.locator("strong")).to_have_text("bold")
    expect(answer.locator("code")).to_have_text("code")
    link = answer.locator("a[href]")
    expect(link).to_have_attribute("href", "https://example.org/")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    assert answer.locator("img, script, iframe, [style]").count() == 0
    assert page.evaluate("globalThis.hit") is None
    assert asked == []


@pytest.mark.parametrize("interpreter", PAGE_INTERPRETERS)
def test_thoughts_are_folded_up_when_the_answer_begins(open_page: Opens, interpreter: str) -> None:
    page = open_page(f"/?autoload=1&interpreter={interpreter}")
    reach(page, "loaded")
    say(page, "(hm) (<b>so</b>) **Yes.**")
    reach(page, "loaded")
    thoughts = page.locator(".message.assistant details.thoughts")
    expect(thoughts.locator("summary")).to_have_text("Thoughts")
    expect(thoughts.locator("p")).to_be_hidden()
    expect(page.locator(".message.assistant .markdown")).to_have_text("Yes.")
    thoughts.locator("summary").press("Enter")
    expect(thoughts.locator("p")).to_have_text("(hm) (<b>so</b>)")
    say(page, "No.")
    reach(page, "loaded")
    expect(page.locator(".message.assistant").last.locator("details")).to_have_count(0)


def test_settings_are_part_of_the_request(open_page: Opens) -> None:
    page = open_page("/?autoload=1")
    reach(page, "loaded")
    page.click("#settings summary")
    page.fill("#temperature", "0.3")
    page.fill("#max-tokens", "7")
    say(page, "REQUEST")
    answer = page.locator(".message.assistant")
    expect(answer).to_have_text(re.compile(r"}\s*$"))
    assert json.loads(answer.inner_text()) == {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "temperature": 0.3,
    }


def test_a_message_that_fails_can_be_sent_again(open_page: Opens) -> None:
    page = open_page("/?autoload=1")
    reach(page, "loaded")
    say(page, "raise ContextWindowSizeExceededError the chat is too long; start a new one")
    notice = page.locator("#notice")
    expect(notice).to_contain_text("ContextWindowSizeExceededError")
    expect(notice).to_contain_text("the chat is too long; start a new one")
    reach(page, "loaded")
    expect(page.locator(".message")).to_have_count(0)
    expect(page.locator("#prompt")).to_have_value(re.compile("^raise "))
    say(page, "fine")
    expect(page.locator(".message.assistant")).to_have_text("fine")
    expect(notice).to_be_hidden()


def test_after_a_lost_device_the_model_can_be_loaded_again(open_page: Opens) -> None:
    page = open_page("/?autoload=1")
    reach(page, "loaded")
    say(page, "a BREAK")
    reach(page, "error")
    expect(page.locator("#notice")).to_contain_text("DeviceLostError")
    page.click("#load")
    reach(page, "loaded")
    expect(page.locator("#notice")).to_be_hidden()


def test_a_model_that_cannot_be_loaded_says_why(open_page: Opens) -> None:
    page = open_page("/?model=missing&autoload=1")
    reach(page, "error")
    expect(page.locator("#status")).to_have_text("missing could not be loaded.")
    expect(page.locator("#notice")).to_contain_text("ModelNotFoundError")
    page.select_option("#model", "some-model")
    page.click("#load")
    reach(page, "loaded")


def test_a_worker_that_cannot_start_says_why(open_page: Opens) -> None:
    page = open_page("/?autoload=1", worker="broken_worker.mjs")
    reach(page, "error")
    expect(page.locator("#notice")).to_contain_text("no snapshot today")
    expect(page.locator("#load")).to_be_enabled()


def test_loading_can_be_cancelled(open_page: Opens) -> None:
    page = open_page("/", worker="silent_worker.mjs")
    reach(page, "ready")
    page.click("#load")
    reach(page, "loading")
    expect(page.locator("#load")).to_have_text("Cancel")
    page.click("#load")
    reach(page, "ready")
    expect(page.locator("#status")).to_have_text("Loading was cancelled.")
    expect(page.locator("#load")).to_have_text("Load")
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize(
    ("interpreter", "before", "texts"),
    [
        (
            "mpy",
            "Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined })",
            ["has no WebGPU", "Chrome or Edge", "Safari", "Firefox"],
        ),
        (
            "mpy",
            "GPU.prototype.requestAdapter = async () => null",
            ["no graphics adapter", "hardware acceleration"],
        ),
        ("py", "GPU.prototype.requestAdapter = async () => null", ["no graphics adapter"]),
        (
            "mpy",
            "Object.defineProperty(globalThis, 'isSecureContext', { value: false })",
            ["secure connection", "http://localhost/"],
        ),
    ],
    ids=["no WebGPU", "no adapter", "no adapter on Pyodide", "not secure"],
)
def test_without_webgpu_the_page_says_what_to_do(
    open_page: Opens, interpreter: str, before: str, texts: list[str]
) -> None:
    page = open_page(f"/?autoload=1&interpreter={interpreter}", before=before)
    reach(page, "error")
    for text in texts:
        expect(page.locator("#notice")).to_contain_text(text)
    expect(page.locator("#load")).to_be_disabled()
    expect(page.locator("#send")).to_be_disabled()


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("**/micropython.mjs", "Python could not be loaded"),
        ("**/pyscript-mpy.json*", "Python could not be loaded"),
        ("**/model_list.json*", "The page could not start."),
    ],
)
def test_a_page_that_cannot_start_says_why(open_page: Opens, missing: str, text: str) -> None:
    page = open_page("about:blank")
    page.route(missing, lambda route: route.fulfill(status=404, body="gone"))
    page.goto("/")
    reach(page, "error")
    expect(page.locator("#status")).to_contain_text(text)
    if "model_list" in missing:
        expect(page.locator("#notice")).to_contain_text("could not be fetched (HTTP 404)")


def test_the_model_card_opens_in_a_dialog(open_page: Opens) -> None:
    page = open_page("/")
    reach(page, "ready")
    expect(page.locator("#attribution")).to_contain_text("Built with Llama")
    page.click("#model-card")
    expect(page.locator("#document-dialog")).to_be_visible()
    expect(page.locator("#document-text h1").first).to_be_visible()
    expect(page.locator("#document-text")).not_to_contain_text("license:")
    page.keyboard.press("Escape")
    expect(page.locator("#document-dialog")).to_be_hidden()


@pytest.mark.parametrize("interpreter", ["mpy", "py"])
def test_kernels_are_measured_in_a_dialog(open_page: Opens, interpreter: str) -> None:
    size = {"width": 320, "height": 640}
    page = open_page(f"/?interpreter={interpreter}", viewport=size)
    reach(page, "ready")
    expect(page.locator("#profile")).to_be_disabled()
    page.click("#load")
    reach(page, "loaded")
    say(page, "FOR EVER")
    expect(page.locator(".message.assistant").last).to_have_text("FOR EVER")
    reach(page, "loaded")
    page.focus("#profile")
    page.keyboard.press("Enter")
    dialog, note = page.locator("#profile-dialog"), page.locator("#profile-note")
    expect(page.locator("#measure")).to_be_focused()
    expect(page.locator("#save-trace")).to_be_hidden()
    expect(page.locator("#kernels-table")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(dialog).to_have_attribute("aria-busy", "true")
    expect(page.locator("#measuring")).to_be_visible()
    expect(note).to_have_text("Measuring…")
    expect(page.locator("#measure")).to_have_text("Stop")
    page.keyboard.press("Enter")
    expect(note).to_have_text("Stopped.")
    expect(page.locator("#kernels-table")).to_be_hidden()
    expect(page.locator("#measure")).to_have_text("Measure")
    expect(page.locator("#measure")).to_be_focused()
    expect(page.locator("#measuring")).to_be_hidden()
    page.keyboard.press("Escape")
    say(page, "for a while")
    expect(page.locator(".message.assistant").last).to_have_text("for a while")
    reach(page, "loaded")
    page.focus("#profile")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(dialog).to_have_attribute("aria-busy", "false")
    expect(page.locator("#measure")).to_be_focused()
    expect(note).to_have_text(
        "some-model on scripted, by the GPU's timestamps. "
        "The adapter moves 8.0 GB/s and computes 8.0 Gop/s."
    )
    rows = page.locator("#kernels tbody tr")
    cells = [row.locator("th, td").all_inner_texts() for row in rows.all()]
    rates = ["2.00", "25.0 %", "4.00", "50.0 %"]
    assert cells == [
        ["Prefill of 128 tokens after 0\n1.15 ms in one pass"],
        ["norm", "1", "4.0", "40.0 %", "1.50", "25.0 %", "0.00", "50.0 %"],
        ["down\n64 x 96", "2", "3.0", "60.0 %", *rates],
        ["Decode step after 128 tokens\n0.01 ms in one pass"],
        ["down\n64 x 96", "2", "3.0", "75.0 %", *rates],
        ["sample", "1", "2.0", "25.0 %", "3.00", "25.0 %", "0.00", "50.0 %"],
    ]
    # In the tree of accessibility, too, kernels belong to the rows' group that its heading names.
    heading = "th[scope=rowgroup][colspan='8']"
    assert page.locator(f"#kernels tbody:has({heading})").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert dialog.evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")
    expect(page.locator("#kernels-table")).to_be_in_viewport()
    page.keyboard.press("Tab")
    expect(page.locator("#save-trace")).to_be_focused()
    with page.expect_download() as downloading:
        page.keyboard.press("Enter")
    assert downloading.value.suggested_filename == "pywebllm-trace.json"
    trace = json.loads(downloading.value.path().read_text())
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [(event["name"], event["tid"], event["args"].get("layer")) for event in slices] == [
        ("norm", 1, 0),
        ("down", 1, 0),
        ("down", 1, 1),
        ("down", 2, 0),
        ("down", 2, 1),
        ("sample", 2, None),
    ]
    assert [event["ts"] for event in slices] == [0, 4, 7, 10, 13, 16]
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    reach(page, "loaded")
    say(page, "hello")
    expect(page.locator(".message.assistant").last).to_have_text("hello")


def test_kernels_that_cannot_be_measured(open_page: Opens) -> None:
    page = open_page("/?autoload=1")
    reach(page, "loaded")
    for said, text, state in (
        ("NO ROOM", "no room for two buffers; load a smaller model.", "loaded"),
        ("NO DEVICE", "the device was lost; reload the model.", "error"),
    ):
        say(page, said)
        expect(page.locator(".message.assistant").last).to_have_text(said)
        reach(page, "loaded")
        page.click("#profile")
        page.click("#measure")
        expect(page.locator("#profile-note")).to_have_text(text)
        expect(page.locator("#profile-dialog")).to_have_attribute("aria-busy", "false")
        expect(page.locator("#save-trace")).to_be_hidden()
        page.keyboard.press("Escape")
        reach(page, state)
    expect(page.locator("#notice")).to_contain_text("DeviceLostError")
    expect(page.locator("#profile")).to_be_disabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(open_page: Opens, scheme: str) -> None:
    size = {"width": 360, "height": 640}
    page = open_page("/?autoload=1", viewport=size, color_scheme=scheme)
    reach(page, "loaded")
    say(page, f"{'x' * 300} {'word ' * 300}")
    expect(page.locator(".message.assistant")).not_to_be_empty()
    reach(page, "loaded")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    expect(page.locator("#send")).to_be_in_viewport(ratio=1)
    expect(page.locator("#load")).to_be_in_viewport(ratio=1)
    page_at_end = (
        "document.documentElement.scrollTop + innerHeight >= document.body.scrollHeight - 2"
    )
    assert page.evaluate(page_at_end)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(22, 23, 22)") == (scheme == "dark")
