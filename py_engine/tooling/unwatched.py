"""A Chromium that no debugger is attached to, for what a debugger would slow down.

Playwright's keeps a copy of every body that a page fetches, which a load of 282 MB is longer for.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from py_engine.tooling.chromium import Adapter, unwatched_chromium
from py_engine.tooling.server import SiteServer

_PAGE = Path(__file__).with_name("unwatched.html")
_PREFIX = "/unwatched/"
_TOLD = f"{_PREFIX}told/"
_LOOK_S = 1
_MOST_LOOKS = 3600  # a slow engine answers after minutes


@dataclass(frozen=True)
class Unwatched:
    """Runs JavaScript on a server's site as the user with this profile, which stays on the disk.

    Each page imports the `scripts` first, paths on the site.
    """

    site_url: str
    answers: queue.SimpleQueue[str]
    profile: Path
    adapter: Adapter = "hardware"
    scripts: Sequence[str] = ()

    def evaluate(self, function: str, argument: object) -> Any:
        """Return what a JavaScript function returns on a new page, in a browser of its own.

        Argument and result are JSON values, the result of some kilobytes. Raises RuntimeError with
        the message of what the function throws, or when the browser ends or tells nothing.
        """
        call = {"scripts": self.scripts, "run": function, "argument": argument}
        page = f"{self.site_url}{_PREFIX}{_PAGE.name}#{quote(json.dumps(call))}"
        with unwatched_chromium(page, self.profile, self.adapter) as browser:
            for _ in range(_MOST_LOOKS):
                if browser.poll() is not None:
                    raise RuntimeError(f"Chromium ended with the status {browser.returncode}")
                try:
                    told = json.loads(self.answers.get(timeout=_LOOK_S))
                except queue.Empty:
                    continue
                if "error" in told:
                    raise RuntimeError(told["error"])
                return told["result"]
        raise RuntimeError(f"{page.partition('#')[0]} told nothing for {_MOST_LOOKS * _LOOK_S} s")


@contextmanager
def unwatched_server(
    folder: Path, mounts: Mapping[str, Path], headers: Mapping[str, str]
) -> Iterator[tuple[SiteServer, queue.SimpleQueue[str]]]:
    """Serve a site with what an unwatched page needs; yield the server and what pages tell."""
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def on_request(path: str, _status: int) -> None:
        if path.startswith(_TOLD):
            answers.put(unquote(path.removeprefix(_TOLD)))

    mounts = {_PREFIX: _PAGE.parent, **mounts}
    with SiteServer(folder, mounts=mounts, headers=headers, on_request=on_request) as server:
        yield server, answers
