"""The site as a Chrome extension: Python in its background worker, in pages and in the popup."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Locator, Page, Playwright, expect

from py_engine.tooling.server import SiteServer
from py_engine.tooling.site import Site
from py_engine.tooling.steps import ROOT
from tests.support.chrome_extension import ChromeExtension
from tests.support.extent import INTERPRETERS
from tests.support.page_cases import PAGE_SUPPORT, case_names, known_cases, run_case

DOCUMENT = ROOT / "docs" / "chrome-extension.md"
PAGES = Path(__file__).parent / "pages"
CASE_FILES = [*PAGES.glob("extension_cases.*"), ROOT / PAGE_SUPPORT]
CASES = case_names(PAGES / "extension_cases.py")
MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"
POPUP = "worker/extension/popup.html"
SECONDS = 300  # for a case, in which the worker may boot and load the model


class Load(Protocol):
    def __call__(
        self, manifest: Mapping[str, Any] | None = None, own_files: Path | None = None
    ) -> ChromeExtension: ...


@pytest.fixture(scope="module")
def load_extension(
    playwright: Playwright,
    browser_type_launch_args: dict[str, Any],
    site: Site,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Load]:
    """Load the site, and the cases with it, as an extension.

    `manifest` replaces fields of the site's; or an extension consists of `own_files`, and has the
    site in its folder `engine/`.
    """
    with contextlib.ExitStack() as extensions:

        def load(
            manifest: Mapping[str, Any] | None = None, own_files: Path | None = None
        ) -> ChromeExtension:
            folder = tmp_path_factory.mktemp("extension") / "unpacked"
            engine = folder if own_files is None else folder / "engine"
            shutil.copytree(site.folder, engine, copy_function=os.link)
            for path in CASE_FILES if own_files is None else own_files.iterdir():
                shutil.copy(path, folder)
            if manifest is not None:
                written = json.loads((folder / "manifest.json").read_text()) | manifest
                (folder / "manifest.json").unlink()  # a link to the site's
                (folder / "manifest.json").write_text(json.dumps(written))
            profile = tmp_path_factory.mktemp("profile")
            extension = ChromeExtension(playwright, browser_type_launch_args, folder, profile)
            extensions.callback(extension.close)
            return extension

        yield load


@pytest.fixture(scope="module")
def extension(load_extension: Load) -> ChromeExtension:
    """The extension as `build.py site` makes it."""
    return load_extension()


@pytest.fixture(scope="module", params=INTERPRETERS)
def cases_page(request: pytest.FixtureRequest, extension: ChromeExtension) -> Iterator[Page]:
    """A page where one of the interpreters has loaded the cases."""
    page = extension.open(f"extension_cases.html?interpreter={request.param}")

    def kill_worker() -> None:
        for weights in extension.folder.glob("models/*/params_shard_*.bin"):
            weights.unlink()
        extension.kill_worker(page)

    page.expose_function("killWorker", kill_worker)
    expect(page).to_have_title("ready", timeout=60_000)
    yield page
    page.close()


@pytest.fixture(scope="module")
def offscreen_page(load_extension: Load) -> Page:
    """A page with the cases in an extension whose engine is in an offscreen document."""
    manifest = {"background": {}, "permissions": ["offscreen", "unlimitedStorage"]}
    extension = load_extension(manifest)
    page = extension.open("extension_cases.html?interpreter=mpy&offscreen")
    expect(page).to_have_title("ready", timeout=60_000)
    return page


@pytest.mark.parametrize("case", CASES)
def test_client(cases_page: Page, case: str) -> None:
    assert run_case(cases_page, case, SECONDS) == ""


def test_all_cases_are_known_to_the_page(cases_page: Page) -> None:
    assert known_cases(cases_page) == sorted(CASES)


@pytest.fixture
def popup(extension: ChromeExtension) -> Iterator[Page]:
    """The popup in a tab of its own, with the embedded model loaded."""
    page = extension.open(POPUP)
    expect(page.locator("#status")).to_have_text(f"{MODEL} is ready.", timeout=300_000)
    yield page
    page.close()


@pytest.mark.parametrize(
    "case",
    ["case_chat", "case_structured_output", "case_a_client_that_leaves_frees_the_model"],
)
def test_engine_in_an_offscreen_document(offscreen_page: Page, case: str) -> None:
    assert run_case(offscreen_page, case, SECONDS) == ""


def test_worker_that_cannot_start_is_tried_again_with_the_next_client(
    load_extension: Load, site: Site
) -> None:
    broken = load_extension()
    names = ("boot.snap.gz", "py_engine.zip")
    for name in names:
        (broken.folder / name).unlink()

    def mend() -> None:
        for name in names:
            os.link(site.folder / name, broken.folder / name)

    page = broken.open("extension_cases.html?interpreter=mpy")
    page.expose_function("mend", mend)
    expect(page).to_have_title("ready", timeout=60_000)
    case = "broken_extension_says_so_and_can_be_mended"
    assert run_case(page, case, SECONDS) == ""


@pytest.mark.parametrize("is_offscreen", [False, True])
def test_extension_of_the_documentation(
    load_extension: Load, tmp_path: Path, is_offscreen: bool
) -> None:
    """Write the files that docs/chrome-extension.md shows, load them, and open the page."""
    text = DOCUMENT.read_text(encoding="utf-8")
    files = dict(re.findall(r"^`([\w.]+)`\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(files) == 5
    if is_offscreen:
        [files["page.mjs"]] = re.findall(r"^```js\n(import \{ open.*?)^```$", text, re.M | re.S)
        files["background.mjs"] = "\n"
        files["manifest.json"] = files["manifest.json"].replace('["unl', '["offscreen", "unl')
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    page = load_extension(own_files=tmp_path).open("page.html")
    ten_words = re.compile(r"(\S+\s+){9}\S")
    expect(page.locator("#answer")).to_contain_text(ten_words, timeout=300_000)


def send(popup: Page, text: str) -> None:
    """Write a message and send it with the keyboard."""
    popup.locator("#prompt").fill(text)
    popup.keyboard.press("Enter")


def answers(popup: Page) -> Locator:
    return popup.locator(".message.assistant")


def test_popup_chats_and_stops_by_keyboard(popup: Page) -> None:
    send(popup, "What is the capital of France?")
    expect(popup.locator(".message.user")).to_have_text("What is the capital of France?")
    expect(popup.locator("#stats")).to_contain_text("tokens read", timeout=300_000)
    send(popup, "Tell me a long story about a fox and a boat.")
    expect(answers(popup).last).not_to_be_empty()
    expect(popup.locator("#stop")).to_be_visible()
    popup.keyboard.press("Escape")
    expect(answers(popup).last).to_contain_text("Stopped.")
    expect(popup.locator("#send")).to_be_enabled()


def test_popup_shows_the_conversation_of_the_one_before(
    extension: ChromeExtension, popup: Page
) -> None:
    popup.locator("#clear").click()
    expect(popup.locator("#welcome")).to_be_visible()
    send(popup, "What is the capital of France?")
    expect(popup.locator("#stats")).to_contain_text("tokens read", timeout=300_000)
    text = answers(popup).inner_text()
    popup.close()
    later = extension.open(POPUP)
    expect(answers(later)).to_have_text(text)
    expect(later.locator(".message.user")).to_have_text("What is the capital of France?")
    later.locator("#clear").click()
    expect(later.locator("#welcome")).to_be_visible()  # by then it is forgotten in the storage, too
    later.close()


def test_popups_at_once_and_one_that_closes_in_mid_answer(
    extension: ChromeExtension, popup: Page
) -> None:
    other = extension.open(POPUP)
    expect(other.locator("#status")).to_have_text(f"{MODEL} is ready.")
    send(other, "Tell me a long story about a dragon.")
    expect(answers(other)).not_to_be_empty()
    send(popup, "What is the capital of France?")
    expect(answers(popup)).not_to_be_empty()
    other.close()
    expect(popup.locator("#stats")).to_contain_text("tokens read", timeout=300_000)
    expect(answers(popup)).to_have_count(1)


def test_popup_summarises_the_page(extension: ChromeExtension, popup: Page, tmp_path: Path) -> None:
    words = " ".join(f"The fox number {n} lives in the wood." for n in range(500))
    hidden = "<p hidden>Nobody sees this.</p>"
    page = f"<title>Foxes</title><h1>On foxes</h1>{hidden}<p>{words}</p>"
    (tmp_path / "index.html").write_text(page)
    with SiteServer(tmp_path) as server:
        tab = extension.context.new_page()
        tab.goto(f"{server.url}/")
        popup.locator("#summarise").click()
        expect(popup.locator("#notice")).to_contain_text("Cannot access contents of the page")
        extension.click_action(tab)
        popup.locator("#summarise").click()
        question = popup.locator(".message.user")
        expect(question).to_contain_text("Summarise “Foxes” (its first", timeout=300_000)
        expect(popup.locator("#stats")).to_contain_text("tokens read", timeout=300_000)
        expect(answers(popup)).not_to_be_empty()
        tab.close()


def test_popup_goes_on_when_the_worker_was_killed(extension: ChromeExtension, popup: Page) -> None:
    extension.kill_worker(popup)
    expect(popup.locator("#status")).to_contain_text("a message starts it again")
    send(popup, "What is the capital of France?")
    expect(popup.locator("#stats")).to_contain_text("tokens read", timeout=300_000)
    expect(answers(popup).last).not_to_be_empty()


@pytest.mark.parametrize("width", [320, 416])
def test_popup_fits_a_narrow_window(popup: Page, width: int) -> None:
    popup.set_viewport_size({"width": width, "height": 576})
    found = popup.evaluate("() => document.documentElement.scrollWidth")
    assert found <= width


def test_popup_runs_on_pyodide(extension: ChromeExtension) -> None:
    page = extension.open(f"{POPUP}?interpreter=py")
    expect(page.locator("#status")).to_have_text(f"{MODEL} is ready.", timeout=300_000)
    page.close()


def test_nothing_is_asked_of_another_machine(extension: ChromeExtension, popup: Page) -> None:
    assert any("boot.snap.gz" in url for url in extension.requests)  # the worker's are among them
    ours = (f"chrome-extension://{extension.id}/", "http://127.0.0.1:")
    assert [url for url in extension.requests if not url.startswith(ours)] == []
