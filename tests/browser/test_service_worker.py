"""The service worker in Chromium: pages share it, close, lose it to the browser, and go on.

Playwright keeps service workers alive, so the browser is told to stop them here; it does by itself
in test_service_worker_idle.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest
from playwright.sync_api import Browser, BrowserContext

from py_engine.tooling.site import Site
from py_engine.tooling.steps import ROOT
from tests.browser.conftest import ServeAltered
from tests.support.extent import INTERPRETERS
from tests.support.service_worker_page import PageError, ServiceWorkerPage
from tests.support.site_server import RecordingServer

EMBEDDED = "Llama-Storyteller-7M-q4f16_1-MLC"
MODELS = f"/models/{EMBEDDED}/"
STORY = {"text": "Tell me a story about a dog.", "temperature": 0, "max_tokens": 12}
WORKER = "./service_worker.mjs"
SCRIPTED = "./tests/browser/pages/scripted_service_worker.mjs"
SCRIPT = "./tests/browser/pages/numpy_worker.py"
LONG = "word " * 200
NO_HEARTBEAT_MS = 86_400_000

REPLACE = """async (url) => {
    const registration = await navigator.serviceWorker.register(url, { type: 'module' });
    const worker = registration.installing;
    await new Promise((settle) => {
        worker.addEventListener('statechange', () => worker.state === 'activated' && settle());
    });
}"""

OpenPage: TypeAlias = Callable[..., ServiceWorkerPage]


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile without service workers."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def open_page(context: BrowserContext, server: RecordingServer) -> OpenPage:
    """Open pages of one profile: `open_page(interpreter)`."""
    return lambda interpreter="mpy": ServiceWorkerPage(context, server.url, interpreter)


def stop_worker(page: ServiceWorkerPage) -> None:
    """Let the browser stop the service worker, as it does with an idle one."""
    devtools = page.page.context.new_cdp_session(page.page)
    devtools.send("ServiceWorker.enable")
    devtools.send("ServiceWorker.stopAllWorkers")
    devtools.detach()


def weights_asked_for(server: RecordingServer) -> list[str]:
    return [path for path in server.paths() if path.startswith(MODELS) and ".bin" in path]


def error_of(function: Callable[[], object]) -> PageError:
    with pytest.raises(PageError) as raised:
        function()
    return raised.value


def test_pages_share_a_model_that_outlives_them(
    open_page: OpenPage, server: RecordingServer
) -> None:
    first = open_page()
    told = first.run("start", url=WORKER, model=EMBEDDED)
    assert len(told) > 3
    story = first.run("ask", **STORY)
    fetched = weights_asked_for(server)
    assert len(story.split()) > 5
    assert len(fetched) == len(set(fetched)) > 0

    second = open_page("py")
    assert [text[:14] for text in second.run("start", url=WORKER, model=EMBEDDED)] == [
        "Finish loading"
    ]
    asked = first.begin("ask", **STORY)
    assert second.run("ask", **STORY) == story
    assert first.result(asked) == story

    first.page.close()
    second.open()
    assert len(second.run("create", model=EMBEDDED)) == 1  # the page's own worker, by its address
    second.run("open_stream", **STORY)
    assert second.run("rest") == story
    assert weights_asked_for(server) == fetched
    schema = '{"type": "object", "properties": {"age": {"type": "integer", "multipleOf": 1}}}'
    form = {"type": "json_object", "schema": schema}
    reply = second.run("ask", text="How old?", max_tokens=50, response_format=form)
    assert reply.startswith("{")


def test_embedded_model_is_loaded_again_from_storage_after_the_worker_was_stopped(
    open_page: OpenPage, server: RecordingServer
) -> None:
    page = open_page()
    app_config = {"model_list": [{"model": f"models/{EMBEDDED}/", "model_id": "mine"}]}
    page.run("start", url=WORKER, model="mine", app_config=app_config)
    story = page.run("ask", **STORY)
    page.run("open_stream", **STORY)
    page.run("next_chunk")
    stop_worker(page)
    assert error_of(lambda: page.run("next_chunk")).name == "WorkerRestartedError"
    server.requests.clear()
    assert page.run("ask", **STORY) == story
    assert [path for path in server.paths() if path.startswith(MODELS)] == [
        f"{MODELS}model-manifest.json"
    ]


@pytest.mark.parametrize("leave", ["close", "navigate"])
def test_a_page_that_leaves_in_mid_stream_frees_the_model(open_page: OpenPage, leave: str) -> None:
    leaver, other = open_page(), open_page()
    for page in (leaver, other):
        page.run("start", url=SCRIPTED, model="some-model")
    leaver.run("open_stream", text=LONG)
    assert leaver.run("next_chunk") == "word "
    asked = other.begin("ask", text="hello")
    if leave == "close":
        leaver.page.close()
    else:
        leaver.page.goto("about:blank")
    assert other.result(asked) == "hello "


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_requests_of_a_worker_that_was_stopped(open_page: OpenPage, interpreter: str) -> None:
    page = open_page(interpreter)
    page.run("start", url=SCRIPTED, model="some-model", keep_alive_ms=200)
    asked = page.begin("ask", text=LONG)
    stop_worker(page)
    assert page.result(asked) == LONG

    page.run("open_stream", text=LONG)
    stop_worker(page)
    assert page.run("rest") == LONG

    page.run("open_stream", text=LONG)
    assert page.run("next_chunk") == "word "
    read = page.begin("rest")
    stop_worker(page)
    error = error_of(lambda: page.result(read))
    assert error.name == "WorkerRestartedError"
    assert "send the request again" in str(error)
    assert page.run("ask", text="hello") == "hello "


def test_missed_heartbeats_count_while_the_worker_starts(open_page: OpenPage) -> None:
    page = open_page()
    page.run("start", url=SCRIPTED, model="some-model", keep_alive_ms=20)
    stop_worker(page)
    counted = []
    while 0 not in counted[-1:] or max(counted) < 2:
        counted.append(page.run("missed_heartbeat"))


def test_another_version_takes_over(open_page: OpenPage) -> None:
    page = open_page()
    page.run("start", url=SCRIPTED, model="some-model", keep_alive_ms=NO_HEARTBEAT_MS)
    page.run("open_stream", text=LONG)
    assert page.run("next_chunk") == "word "
    page.page.evaluate(REPLACE, f"{SCRIPTED}?version=2")
    assert error_of(lambda: page.run("rest")).name == "WorkerRestartedError"
    assert page.run("ask", text="hello") == "hello "


def test_unregistered_worker_is_told_of(open_page: OpenPage) -> None:
    page = open_page()
    page.run("start", url=SCRIPTED, model="some-model", keep_alive_ms=NO_HEARTBEAT_MS)
    asked = page.begin("ask", text=LONG)
    page.run("unregister")
    error = error_of(lambda: page.result(asked))
    assert error.name == "WorkerFailedError"
    assert "not registered any more" in str(error)
    assert "not registered any more" in str(error_of(lambda: page.run("ask", text="hello")))
    page.run("start", url=SCRIPTED, model="some-model")
    assert page.run("ask", text="hello") == "hello "


@pytest.mark.parametrize("interpreter", ["mpy", "py"])
def test_what_cannot_be_registered_is_told_of(open_page: OpenPage, interpreter: str) -> None:
    page = open_page(interpreter)
    error = error_of(lambda: page.run("create", model=EMBEDDED))
    assert error.name == "ServiceWorkerInitializationError"
    assert "call `await register_service_worker()` first" in str(error)
    for url, reason in (
        ("./none.mjs", "(404)"),
        ("./index.html", "MIME type"),
        ("https://example.org/x.mjs", "origin"),
    ):
        error = error_of(lambda url=url: page.run("start", url=url, model=EMBEDDED))
        assert error.name == "ServiceWorkerInitializationError"
        assert reason in str(error)


@pytest.mark.parametrize("interpreter", ["mpy", "py"])
def test_a_page_without_service_workers_is_told_of(
    context: BrowserContext, server: RecordingServer, interpreter: str
) -> None:
    address = "http://example.test"
    context.route(
        f"{address}/**",
        lambda route: route.fulfill(
            response=route.fetch(url=route.request.url.replace(address, server.url))
        ),
    )
    page = ServiceWorkerPage(context, address, interpreter)
    error = error_of(lambda: page.run("start", url=WORKER, model=EMBEDDED))
    assert error.name == "NoServiceWorkerAPIError"
    assert f"{address} is no secure context" in str(error)


def test_script_and_a_worker_that_cannot_start_again(
    context: BrowserContext, serve_altered: ServeAltered, site: Site
) -> None:
    names = ("boot.snap.gz", "py_engine.zip")
    sound: dict[str, bytes | None] = {name: (site.folder / name).read_bytes() for name in names}
    server = serve_altered(sound)
    page = ServiceWorkerPage(context, server.url)
    page.run("start", url=WORKER, script=SCRIPT, model="any", keep_alive_ms=200)
    assert page.run("call", method="get_gpu_vendor") == "numpy 3"

    asked = page.begin("call", method="runtime_stats_text")
    for name in names:
        (server.folder / name).write_bytes(b"damaged")
    stop_worker(page)
    error = error_of(lambda: page.result(asked))
    assert error.name == "WorkerFailedError"
    assert "The engine's worker could not start: " in str(error)

    for name, data in sound.items():
        (server.folder / name).write_bytes(data or b"")
    assert page.run("call", method="get_gpu_vendor") == "numpy 3"


@pytest.mark.parametrize("kind", INTERPRETERS)
def test_chat_of_the_documentation(
    context: BrowserContext, server: RecordingServer, kind: str
) -> None:
    document = (ROOT / "docs" / "service-worker.md").read_text(encoding="utf-8")
    snippet = document.partition("```html\n")[2].partition("```")[0].replace('"mpy"', f'"{kind}"')
    html = f"<!doctype html><meta charset=utf-8><body>{snippet}"
    context.route(
        "**/snippet.html", lambda route: route.fulfill(body=html, content_type="text/html")
    )
    page = context.new_page()
    page.goto(f"{server.url}/snippet.html")
    page.wait_for_function("document.body.innerText.split(' ').length > 10", timeout=120_000)
