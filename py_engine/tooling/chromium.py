"""Starting Chromium with WebGPU, through Playwright; used by the demo, the bench and the tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from py_engine.tooling.environment import ensure_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

Adapter = Literal["hardware", "swiftshader"]

_COMMON = ("--enable-unsafe-webgpu", "--enable-features=Vulkan", "--ignore-gpu-blocklist")
_ADAPTERS: dict[Adapter, tuple[str, ...]] = {
    "hardware": (),
    "swiftshader": ("--use-webgpu-adapter=swiftshader",),
}
_HAS_ADAPTER = "async () => !!(navigator.gpu && await navigator.gpu.requestAdapter())"


def launch_options(adapter: Adapter, headless: bool = True) -> dict[str, Any]:
    """Return the arguments of Playwright's `chromium.launch`.

    `swiftshader` is Chromium's own software adapter: it is the same on every machine.
    """
    no_sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    return {
        "executable_path": str(ensure_chromium()),
        "headless": headless,
        "args": [*_COMMON, *_ADAPTERS[adapter], *no_sandbox],
    }


def launch(playwright: Playwright, headless: bool = True) -> tuple[Browser, Adapter]:
    """Start Chromium on the machine's GPU, or on SwiftShader when it offers no adapter."""
    browser = playwright.chromium.launch(**launch_options("hardware", headless))
    page = browser.new_page()
    # A secure context of any kind has navigator.gpu; about:blank is none.
    page.route("http://localhost/", lambda route: route.fulfill(body="<!doctype html>"))
    page.goto("http://localhost/")
    has_adapter = page.evaluate(_HAS_ADAPTER)
    page.close()
    if has_adapter:
        return browser, "hardware"
    browser.close()
    return playwright.chromium.launch(**launch_options("swiftshader", headless)), "swiftshader"
