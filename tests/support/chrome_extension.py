"""Chromium with an extension loaded, as `chrome://extensions` loads an unpacked one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Playwright


class ChromeExtension:
    """A browser of its own with the extension in `folder`; `close()` ends it.

    `launch` are the arguments of Playwright's `chromium.launch`, `profile` is an empty folder.
    `requests` are the URLs of all that its pages and its worker asked for.
    """

    def __init__(
        self, playwright: Playwright, launch: dict[str, Any], folder: Path, profile: Path
    ) -> None:
        self.folder = folder
        self.requests: list[str] = []
        arguments = ["--enable-unsafe-extension-debugging"]
        if launch["headless"]:
            arguments.append("--headless=new")  # Playwright's own headless has no extensions
        options = {
            **launch,
            "headless": False,
            "args": [*launch["args"], *arguments],
            "ignore_default_args": [
                "--disable-extensions",
                *(launch["ignore_default_args"] or ()),
            ],
        }
        self.context = playwright.chromium.launch_persistent_context(profile, **options)
        self.context.set_default_timeout(120_000)
        self.context.on("request", lambda request: self.requests.append(request.url))
        browser = self.context.browser
        assert browser is not None
        self._session = browser.new_browser_cdp_session()
        self.id = self._session.send("Extensions.loadUnpacked", {"path": str(folder)})["id"]

    def open(self, path: str) -> Page:
        """Open one of the extension's pages in a tab."""
        page = self.context.new_page()
        page.goto(f"chrome-extension://{self.id}/{path}")
        return page

    def click_action(self, tab: Page) -> None:
        """Click the extension's button in the window of `tab`, which lets it read the tab."""
        tab.bring_to_front()
        found = self._session.send("Target.getTargets", {"filter": [{"type": "tab"}]})[
            "targetInfos"
        ]
        [target] = [info["targetId"] for info in found if info["url"] == tab.url]
        self._session.send("Extensions.triggerAction", {"id": self.id, "targetId": target})

    def kill_worker(self, page: Page) -> None:
        """End the background worker, as the browser does with one that is idle for too long."""
        session = self.context.new_cdp_session(page)
        session.send("ServiceWorker.enable")
        session.send("ServiceWorker.stopAllWorkers")
        session.detach()

    def close(self) -> None:
        """End the browser."""
        self.context.close()
