"""The gallery: every snippet runs in the real page as it is shown, and does what it says.

What a snippet must print is told by the function `outcome_of_NAME`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Locator, Page, expect

from py_engine.tooling.snippets import FOLDER, read_snippet, read_snippets
from py_engine.tooling.steps import ROOT
from tests.support.extent import PAGE_INTERPRETERS
from tests.support.site_server import RecordingServer

EMBEDDED_MODEL = ROOT / "web/models/Llama-Storyteller-7M-q4f16_1-MLC"
# Those that Pyodide runs here too: its own, and those with most that the interpreters differ in.
ON_PYODIDE = ("openai_client", "abort_reload", "local_files")
RUNS = [(each.name, "mpy") for each in read_snippets() if "mpy" in each.types]
RUNS += [(name, "py") for name in ON_PYODIDE] + [("main_thread", "py-engine")]
LONG = 300_000  # ms, for a machine with other things to do


@pytest.fixture(scope="module")
def context(browser: Browser, session_server: RecordingServer) -> Iterator[BrowserContext]:
    """One visitor, who opens the pages one after the other and asks no other site."""
    context = browser.new_context(base_url=session_server.url)
    context.set_default_timeout(60_000)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    yield context
    context.close()
    assert len(asked) > 100
    ours = (session_server.url, f"blob:{session_server.url}")
    assert [url for url in asked if not url.startswith(ours)] == []


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    yield page
    page.close()


def open_snippet(page: Page, name: str, kind: str = "mpy") -> None:
    page.goto(f"/gallery/?snippet={name}&type={kind}")
    reach(page, "ready")


def reach(page: Page, state: str) -> None:
    expect(page.locator("html")).to_have_attribute("data-state", state, timeout=LONG)


def frame(page: Page) -> FrameLocator:
    return page.frame_locator("#output iframe")


def output(page: Page) -> Locator:
    return frame(page).locator("body")


def run(page: Page, code: str | None = None) -> str:
    """Run the snippet, or other code, to its end; return what it printed."""
    if code is not None:
        page.fill("#code", code)
    page.click("#run")
    wait_for_end(page)
    return output(page).inner_text()


def wait_for_end(page: Page) -> None:
    ended = "['done', 'failed'].includes(document.documentElement.dataset.state)"
    page.wait_for_function(ended, timeout=LONG)


def constants(name: str) -> dict[str, Any]:
    """Return what a snippet gives to names in capitals."""
    values: dict[str, Any] = {}
    for node in ast.parse((FOLDER / f"{name}.py").read_bytes()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper():
            exec(ast.unparse(node), values)
    return values


def pick_files(page: Page) -> None:
    expect(output(page)).to_contain_text("Pick a .gguf file", timeout=LONG)
    files = [path for path in EMBEDDED_MODEL.iterdir() if path.suffix in {".json", ".bin"}]
    frame(page).get_by_label("The model's files").set_input_files(files)


MEANWHILE: dict[str, Callable[[Page], None]] = {"local_files": pick_files}


@pytest.mark.sampled
@pytest.mark.parametrize(("name", "kind"), RUNS)
def test_snippet(page: Page, name: str, kind: str) -> None:
    open_snippet(page, name, kind)
    header, code = (FOLDER / f"{name}.py").read_text(encoding="utf-8").split('"""\n\n', 1)
    assert page.input_value("#code") == code
    assert header.startswith(f'"""{page.inner_text("#title")}\n\n')
    page.click("#run")
    MEANWHILE.get(name, lambda page: None)(page)
    wait_for_end(page)
    text = output(page).inner_text()
    assert frame(page).locator(".error").count() == 0, text
    expect(page.locator("#status")).to_have_text(re.compile(r"Done after [\d.]+ s\."))
    globals()[f"outcome_of_{name}"](text)


def found(pattern: str, text: str) -> tuple[str, ...]:
    """Return the groups of a pattern that the whole text must match."""
    match = re.fullmatch(pattern, text.strip(), re.DOTALL)
    assert match, text
    return match.groups()


def outcome_of_get_started(text: str) -> None:
    assert len(text.split()) > 20


def outcome_of_streaming(text: str) -> None:
    story, n_tokens = found(
        r"(.+)\n\nFinish reason: abort, (\d+) tokens\n[\d.]+ tokens per second", text
    )
    assert len(story.split()) > 15
    assert 40 <= int(n_tokens) < 80


def outcome_of_multi_round_chat(text: str) -> None:
    counts = re.findall(r"\(prompt of (\d+) tokens, (\d+) of them known", text)
    prompts, cached = ([int(each) for each in column] for column in zip(*counts, strict=True))
    assert len(counts) == 3
    assert cached[0] == 0
    assert 0 < cached[1] < cached[2]
    assert all(prompt > known for prompt, known in zip(prompts, cached, strict=True))


def outcome_of_text_completion(text: str) -> None:
    first, second, likeliest = found(r"0: (.+?)\n\n1: (.+?)\n\n(.+)", text)
    beginning = "Once upon a time, there was a"
    for completion in (first, second):
        assert completion.startswith(beginning)
        assert len(completion) > len(beginning)
    shares = [float(share) for share in re.findall(r"([\d.]+) % '", likeliest)]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100.1


def outcome_of_openai_client(text: str) -> None:
    kind = "openai.types.chat.chat_completion.ChatCompletion"
    _, found_kind, answer = text.partition(kind)  # before it Pyodide tells what it loads
    assert found_kind
    assert "Llama Storyteller" in answer


def outcome_of_json_mode(text: str) -> None:
    values, end = json.JSONDecoder().raw_decode(text)
    assert values
    assert text[end:].split("\n")[1:-1] == [f"{key} is {value!r}" for key, value in values.items()]


def outcome_of_json_schema(text: str) -> None:
    wizard, end = json.JSONDecoder().raw_decode(text)
    jsonschema.validate(wizard, constants("json_schema")["SCHEMA"])
    assert f"{wizard['name']} of {wizard['house']} has" in text[end:]


def outcome_of_grammar(text: str) -> None:
    found(r"(?:(?:[a-z]{2,8} ){2}[a-z]{2,8}\n){3}\n?At (?:0?[5-9]|1[0-2]):[0-5]\d o'clock\.", text)


def outcome_of_structural_tag(text: str) -> None:
    called, arguments, told, city = found(
        r"<call=(\w+)>(.+?)</call>\nThe tool is (\w+), the city is (.*)\.", text
    )
    assert called == told
    assert called in {"get_weather", "get_time"}
    assert json.loads(arguments) == {"city": city}


def outcome_of_tools(text: str) -> None:
    arguments, answer = found(r"The model calls get_weather with ([^\n]+)\n(.+)", text)
    assert list(json.loads(arguments)) == ["city"]
    assert "21" in answer


def outcome_of_seed(text: str) -> None:
    first, second, third = re.findall(r"seed \d+: (.+)\n", text)
    assert first == second != third
    assert text.strip().endswith("Seed 42 twice is the same: True\nSeed 43 is the same: False")


def outcome_of_logit_processor(text: str) -> None:
    n_tokens, n_different = found(r".+\n\n(\d+) tokens, (\d+) of them different", text)
    assert int(n_tokens) == int(n_different) > 20


def outcome_of_thinking(text: str) -> None:
    thoughts, answer = found(r"Thoughts: (.+)\n\nAnswer: (.+)", text)
    assert thoughts.startswith("7 plus 5 is ")
    assert "think" not in text
    assert answer


def outcome_of_latency_breakdown(text: str) -> None:
    parts = re.findall(r"(\w+): ([\d.]+) ms for each of (\d+) tokens", text)
    means = {name: float(mean) for name, mean, _ in parts}
    assert {"totalTime", "sampleTime", "grammarBitmaskTime"} <= set(means)
    assert means["totalTime"] == max(means.values())
    assert len({count for *_, count in parts}) == 1


def outcome_of_multi_models(text: str) -> None:
    cautious, daring, megabytes = found(
        r"cautious: (.+)\n\ndaring: (.+)\n\n([\d.]+) MB on the GPU", text
    )
    assert cautious != daring
    assert float(megabytes) > 15


def outcome_of_custom_model(text: str) -> None:
    [n_tokens] = found(
        r".+my-model ended with 'length'.+after (\d+) tokens of question and answer\.", text
    )
    assert 120 < int(n_tokens) <= 129


def outcome_of_embeddings(text: str) -> None:
    given = constants("embeddings")
    answers = dict(re.findall(r"([A-Z][^\n]+\?)\n[\d.]+  ([^\n]+)\n\n", text))
    assert list(answers) == given["QUESTIONS"]
    parts = dict(zip(answers, ("castle", "moon", "captain"), strict=True))
    assert all(part in answers[question] for question, part in parts.items())
    assert len(text.rpartition("\n\n")[2].split()) > 2


def outcome_of_local_files(text: str) -> None:
    [answer] = found(r"Pick a .+\n+local:mine: (.+)", text)
    assert answer


def outcome_of_integrity(text: str) -> None:
    found(
        r"The files are those that were meant\.\nRefused: .+mlc-chat-config\.json .+sha256-.+", text
    )


def outcome_of_cache_control(text: str) -> None:
    [megabytes] = found(
        r"([\d.]+) MB of Llama-Storyteller.+\nStored: True\nStored after deleting it: False", text
    )
    assert float(megabytes) > 3


def outcome_of_abort_reload(text: str) -> None:
    before, after = text.split("The load was ended, no model is loaded.\n")
    assert "% " in before
    assert "Finish loading" not in before
    assert re.search(r"Finish loading on WebGPU[^\n]+\n.+", after)


def outcome_of_web_worker(text: str) -> None:
    progress, answer, ticks = found(
        r"(.+Finish loading on WebGPU[^\n]+)\n(.+)\n\nMeanwhile the page's clock ticked (\d+) times"
        r"\..+decoding: .+",
        text,
    )
    shares = [int(share) for share in re.findall(r"(\d+) % ", progress)]
    assert shares == sorted(shares)
    assert len(answer.split()) > 10
    assert int(ticks) > 10


def outcome_of_main_thread(text: str) -> None:
    [story] = found(r"(.+)\n\nMLCEngine computes where this code runs: .+", text)
    assert len(story.split()) > 15


def outcome_of_service_worker(text: str) -> None:
    n_reports, n_again, first, second = found(
        r"(\d+) reports? until: Finish loading [^\n]+\n(\d+) report for the second one\n"
        r"([^\n]+)\n([^\n]+)",
        text,
    )
    assert int(n_reports) > int(n_again) == 1
    assert first and second


def test_every_snippet_has_a_run() -> None:
    assert {name for name, _ in RUNS} == {path.stem for path in FOLDER.glob("*.py")}
    assert all(kind in read_snippet(FOLDER / f"{name}.py").types for name, kind in RUNS)


@pytest.mark.parametrize("kind", PAGE_INTERPRETERS)
def test_what_is_edited_runs_and_errors_show_where_they_are(page: Page, kind: str) -> None:
    open_snippet(page, "get_started", kind)
    original = page.input_value("#code")
    expect(page.locator("#reset")).to_be_disabled()
    assert run(page, "print(6 * 7)\nprint('grün', end='')").strip() == "42\ngrün"
    failed = run(page, "def f():\n    return 1 / 0\n\n\nprint('before')\nf()\n")
    reach(page, "failed")
    assert failed.startswith("before\n")
    assert frame(page).locator(".error").count() == 1
    for part in ("Traceback", "line 6", "line 2", "ZeroDivisionError"):
        assert part in failed
    assert "SyntaxError" in run(page, "print(")
    assert run(page, "import asyncio\nawait asyncio.sleep(0)\nprint('well')").strip() == "well"
    reach(page, "done")
    page.click("#reset")
    assert page.input_value("#code") == original
    expect(page.locator("#reset")).to_be_disabled()


def test_an_edited_snippet_has_another_outcome(page: Page) -> None:
    open_snippet(page, "get_started")
    code = page.input_value("#code")
    short = code.replace("max_tokens=60", "max_tokens=3")
    assert short != code
    keep = """() => {
        globalThis.seen = [];
        const loading = document.getElementById('loading');
        new MutationObserver(() => seen.push(loading.hidden)).observe(loading, {attributes: true});
    }"""
    page.evaluate(keep)
    assert 0 < len(run(page, short).split()) <= 3
    assert page.evaluate("seen.includes(false)")  # the progress of the load was shown
    expect(page.locator("#loading")).to_be_hidden()


def test_the_keyboard_is_enough(page: Page) -> None:
    open_snippet(page, "get_started")
    page.focus("#code")
    page.keyboard.press("ControlOrMeta+a")
    keys = page.keyboard
    keys.type("for i in range(3):\nprint(i)\n")
    keys.press("Shift+Tab")
    keys.type("if True:\nprint('a')\nprint('b')")
    assert page.input_value("#code") == (
        "for i in range(3):\n    print(i)\nif True:\n    print('a')\n    print('b')"
    )
    keys.press("Shift+ArrowUp")
    keys.press("Tab")
    assert page.input_value("#code").endswith("\n        print('a')\n        print('b')")
    keys.press("Shift+Tab")
    keys.press("ControlOrMeta+Enter")
    reach(page, "done")
    assert output(page).inner_text().split() == ["0", "1", "2", "a", "b"]
    expect(page.locator("#code")).to_be_focused()
    keys.press("Escape")
    keys.press("Tab")
    expect(page.locator("#code")).not_to_be_focused()


def test_stop_ends_the_snippet_and_its_workers(page: Page) -> None:
    open_snippet(page, "web_worker")
    code = (
        "import asyncio\nfrom py_engine import WebWorkerMLCEngine\nengine = WebWorkerMLCEngine()\n"
        "print('vendor', await engine.get_gpu_vendor())\nawait asyncio.sleep(1000)"
    )
    page.fill("#code", code)
    expect(page.locator("#stop")).to_be_disabled()
    page.click("#run")
    expect(output(page)).to_contain_text("vendor", timeout=LONG)
    [worker] = page.workers
    with page.expect_event("framenavigated"):
        page.click("#stop")
    reach(page, "stopped")
    expect(output(page)).to_contain_text("vendor")
    page.wait_for_function("true")
    assert worker not in page.workers
    assert run(page, "print('again')").strip() == "again"


def test_the_index_leads_to_the_snippets(page: Page) -> None:
    page.goto("/gallery/")
    reach(page, "ready")
    titles = page.locator("#cards strong").all_inner_texts()
    assert titles == [snippet.title for snippet in read_snippets()]
    page.get_by_role("link", name="Streaming").click()
    expect(page.locator("#title")).to_have_text("Streaming")
    example = page.get_by_role("link", name="WebLLM: streaming")
    expect(example).to_have_attribute("href", re.compile("mlc-ai/web-llm/.*/examples/streaming$"))
    page.locator("#neighbours a").last.click()
    expect(page.locator("#title")).to_have_text(titles[titles.index("Streaming") + 1])
    page.get_by_role("link", name="Chat", exact=True).click()
    expect(page.locator("#chat-form")).to_be_visible()
    page.get_by_role("link", name="Snippets").click()
    expect(page.locator("#cards")).to_be_visible()


def test_documents_open_in_a_dialog(page: Page) -> None:
    open_snippet(page, "tools")
    page.get_by_role("link", name="docs/tools.md").click()
    expect(page.locator("#document-text h1")).to_have_text("Tools, thoughts and control tokens")
    page.keyboard.press("Escape")
    open_snippet(page, "json_mode")
    page.get_by_role("link", name="docs/structured-output.md").click()
    page.locator("#document-text a[href$='/docs/api.md']").click()
    expect(page.locator("#document-text h1")).to_have_text("The API")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_gallery_fits_a_phone(
    browser: Browser, session_server: RecordingServer, scheme: Any
) -> None:
    size = {"width": 360, "height": 640}
    context = browser.new_context(
        base_url=session_server.url, viewport=size, color_scheme=scheme, has_touch=True
    )
    page = context.new_page()
    page.goto("/gallery/")
    reach(page, "ready")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    open_snippet(page, "json_schema")
    run(page, f"print('x' * 300, 'word ' * 300)\nprint({'y' * 300!r}.z)")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    inner = output(page).evaluate("body => [body.scrollWidth, innerWidth, body.scrollHeight]")
    assert inner[0] <= inner[1]
    # The frame is as high as what it shows, so that nothing scrolls within the page.
    height = page.locator("#output iframe").evaluate("frame => frame.offsetHeight")
    assert height >= inner[2] > 500
    colour = output(page).evaluate("body => getComputedStyle(body).backgroundColor")
    assert (colour == "rgb(32, 34, 33)") == (scheme == "dark")
    context.close()


@pytest.mark.parametrize("kind", PAGE_INTERPRETERS)
def test_a_page_in_a_folder_finds_the_files_of_the_site(page: Page, kind: str) -> None:
    """The page of docs/pyscript.md, two folders down."""
    snippet = (ROOT / "docs/pyscript.md").read_text().partition("```html\n")[2].partition("```")[0]
    snippet = snippet.replace("./pywebllm.mjs", "../../pywebllm.mjs").replace('"mpy"', f'"{kind}"')
    html = f"<!doctype html><meta charset=utf-8><body>{snippet}"
    page.route(
        "**/deep/down/page.html", lambda route: route.fulfill(body=html, content_type="text/html")
    )
    page.goto("/deep/down/page.html")
    page.wait_for_function("document.body.innerText.split(' ').length > 20", timeout=LONG)
