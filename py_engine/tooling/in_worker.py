"""Running JavaScript in a fresh worker of the site, for measurements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py_engine.tooling.chromium import launch
from py_engine.tooling.server import SiteServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from py_engine.tooling.unwatched import Unwatched

_RUN = """async ({ url, body, argument }) => {
    const code = `import { boot } from '${url}/worker/boot.mjs';
        onmessage = async ({ data: argument }) => {
            try {
                postMessage({ result: await (async () => { ${body} })() });
            } catch (error) {
                postMessage({ error: String(error.message ?? error) });
            }
        };`;
    const source = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
    const started = performance.now();
    const worker = new Worker(source, { type: 'module' });
    worker.postMessage(argument);
    try {
        return await new Promise((resolve, reject) => {
            worker.onmessage = ({ data: { result, error } }) => {
                if (error !== undefined) reject(new Error(error));
                resolve({ result, seconds: (performance.now() - started) / 1000 });
            };
            worker.onerror = ({ message }) => reject(new Error(`no worker: ${message}`));
        });
    } finally {
        worker.terminate();
        URL.revokeObjectURL(source);
    }
}"""


@contextmanager
def page_of_site(site_folder: Path) -> Iterator[tuple[Page, str]]:
    """Serve a built site; yield a page on it, in a browser of its own, and the site's URL."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, SiteServer(site_folder) as server:
        browser, _ = launch(playwright)
        page = browser.new_page()
        page.goto(f"{server.url}/build.json")
        yield page, server.url
        browser.close()


def run_in_worker(
    page: Page | Unwatched, url: str, body: str, argument: Any = None
) -> tuple[Any, float]:
    """Run the body of an async function in a new worker; return its result and the seconds it took.

    `url` is the site's, which the page must be on. The body may use `boot` of `worker/boot.mjs`
    and `argument`, a JSON value. Seconds count from `new Worker`.
    """
    answer = page.evaluate(_RUN, {"url": url, "body": body, "argument": argument})
    return answer["result"], answer["seconds"]
