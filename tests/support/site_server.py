"""A server of a built site that records what it was asked for."""

from __future__ import annotations

import threading
from pathlib import Path

from py_engine.tooling.server import SiteServer

BROWSER_SUPPORT = Path(__file__).parents[1] / "browser" / "support"


class RecordingServer(SiteServer):
    """Serves a site and, under /test-support/, the pages and workers of the tests."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[tuple[str, int]] = []
        self._lock = threading.Lock()
        super().__init__(
            folder, mounts={"/test-support/": BROWSER_SUPPORT}, on_request=self._record
        )

    def _record(self, target: str, status: int) -> None:
        with self._lock:
            self.requests.append((target, status))

    def paths(self) -> list[str]:
        """Return the paths asked for so far, without their queries."""
        with self._lock:
            return [target.partition("?")[0] for target, _ in self.requests]
