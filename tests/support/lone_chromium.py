"""Chromium without DevTools attached, as users run it: pages report to a server of the test."""

from __future__ import annotations

import json
import queue
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from py_engine.tooling.chromium import Adapter, unwatched_chromium
from tests.support.site_server import RecordingServer

_REPORT = "/report?"


class ReportServer(RecordingServer):
    """A server of the site to which pages report: they fetch `/report?` and a JSON object."""

    def __init__(self, folder: Path) -> None:
        self._reports: queue.Queue[dict[str, Any]] = queue.Queue()
        super().__init__(folder)

    def report(self, timeout: float = 300) -> dict[str, Any]:
        """Wait for the next report. Errors: queue.Empty after so many seconds."""
        return self._reports.get(timeout=timeout)

    def _record(self, target: str, status: int) -> None:
        super()._record(target, status)
        if target.startswith(_REPORT):
            self._reports.put(json.loads(unquote(target.removeprefix(_REPORT))))


@contextmanager
def lone_chromium(address: str, adapter: Adapter) -> Iterator[None]:
    """Open a page in a new Chromium with a profile of its own, until the block ends."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        unwatched_chromium(address, Path(profile), adapter),
    ):
        yield
