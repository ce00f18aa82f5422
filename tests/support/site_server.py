"""A server of a built site that records what it was asked for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from py_engine.tooling.server import SiteServer

TESTS = Path(__file__).parents[1]


class RecordingServer(SiteServer):
    """Serves a site, the tests' own files under /tests/, and their support under /test-support/.

    /python.html is at the site's root, as PyScript's configurations want it of a page. `mounts` are
    folders under further prefixes.
    """

    def __init__(self, folder: Path, mounts: Mapping[str, Path] | None = None) -> None:
        self.requests: list[tuple[str, int]] = []
        self._lock = threading.Lock()
        support = TESTS / "browser" / "support"
        own = {
            "/test-support/": support,
            "/tests/": TESTS,
            "/python.html": support / "python.html",
        }
        super().__init__(folder, mounts={**own, **(mounts or {})}, on_request=self._record)

    def _record(self, target: str, status: int) -> None:
        with self._lock:
            self.requests.append((target, status))

    def paths(self) -> list[str]:
        """Return the paths asked for so far, without their queries."""
        with self._lock:
            return [target.partition("?")[0] for target, _ in self.requests]
