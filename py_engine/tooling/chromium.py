"""Starting Chromium with WebGPU, through Playwright or alone; for the demo, benches and tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from py_engine.tooling.environment import ensure_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

Adapter = Literal["hardware", "swiftshader"]

# Without a GPU the first of these also brings SwiftShader, Chromium's adapter in software.
_FLAGS = ("--enable-unsafe-webgpu", "--enable-features=Vulkan", "--ignore-gpu-blocklist")
_ONLY_SWIFTSHADER = "--use-webgpu-adapter=swiftshader"
# Playwright turns GPUs off in headless browsers, so that they draw alike everywhere.
_AGAINST_HARDWARE = [
    "--disable-gpu",
    "--use-angle=swiftshader-webgl",
    "--enable-unsafe-swiftshader",
]
_DESCRIBE_ADAPTER = """async () => {
    const adapter = await navigator.gpu?.requestAdapter();
    return adapter ? `${adapter.info.vendor} ${adapter.info.architecture}`.trim() : '';
}"""

_UNWATCHED_FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
)
_END_S = 30


def launch_options(adapter: Adapter, headless: bool = True) -> dict[str, Any]:
    """Return the arguments of Playwright's `chromium.launch`.

    "hardware" is the machine's GPU where it has one, "swiftshader" the same on every machine.
    """
    use_hardware = adapter == "hardware"
    return {
        "executable_path": str(ensure_chromium()),
        "headless": headless,
        "chromium_sandbox": not headless and os.geteuid() != 0,
        "args": [*_FLAGS, *(() if use_hardware else (_ONLY_SWIFTSHADER,))],
        "ignore_default_args": _AGAINST_HARDWARE if use_hardware else None,
    }


def launch(playwright: Playwright, headless: bool = True) -> tuple[Browser, str]:
    """Start Chromium on the machine's GPU, or in software where it has none.

    Returns the browser and its WebGPU adapter in words; "" when it offers none.
    """
    browser = playwright.chromium.launch(**launch_options("hardware", headless))
    page = browser.new_page()
    # WebGPU is only offered to secure contexts, such as localhost; about:blank is none.
    page.route("http://localhost/", lambda route: route.fulfill(body=""))
    page.goto("http://localhost/")
    adapter: str = page.evaluate(_DESCRIBE_ADAPTER)
    page.close()
    return browser, adapter


@contextmanager
def unwatched_chromium(
    address: str, profile: Path, adapter: Adapter
) -> Iterator[subprocess.Popen[bytes]]:
    """Open a page in a Chromium that no debugger is attached to, until the block ends.

    What its pages store stays in the folder `profile`.
    """
    options = launch_options(adapter)
    sandbox = () if options["chromium_sandbox"] else ("--no-sandbox",)
    command = [options["executable_path"], *_UNWATCHED_FLAGS, *sandbox, *options["args"]]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        [*command, f"--user-data-dir={profile}", address], stdout=quiet, stderr=quiet
    ) as browser:
        try:
            yield browser
        finally:
            browser.terminate()
            try:
                browser.wait(_END_S)
            except subprocess.TimeoutExpired:
                browser.kill()
