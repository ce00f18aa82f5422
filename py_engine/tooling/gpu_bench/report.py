"""Figures as they come: printed, and kept in a JSON file that is whole after every one of them."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


class Report:
    """Runs measurements one after the other until `budget_s` is used up; keeps what they return."""

    def __init__(self, path: Path, budget_s: float) -> None:
        self._path = path
        self._started = time.perf_counter()
        self._budget_s = budget_s
        self._found: dict[str, Any] = {}

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return self._budget_s - (time.perf_counter() - self._started)

    def say(self, text: str) -> None:
        """Print a line with the seconds since the start."""
        print(f"[{time.perf_counter() - self._started:6.1f}] {text}")

    def keep(self, name: str, figures: Any) -> None:
        """Keep figures that are JSON."""
        self._found[name] = figures
        self._path.write_text(json.dumps(self._found), encoding="utf-8")

    async def measure(
        self, name: str, run: Callable[[], Awaitable[Any]], at_most_s: float = 60
    ) -> Any:
        """Run one measurement and keep what it returns; None when it fails or time is up."""
        if self.left_s < 2:
            self.say(f"{name}: no time left")
            return None
        self.say(name)
        try:
            found = await asyncio.wait_for(run(), min(at_most_s, self.left_s))
        except Exception as error:  # whatever it is, what follows can still be measured
            text = f"{type(error).__name__}: {error}"[:600]
            print(f"    FAILED {text}\n{''.join(traceback.format_exc()[-900:])}")
            self.keep(name, {"failed": text})
            return None
        self.keep(name, found)
        return found


def table(rows: list[dict[str, Any]]) -> None:
    """Print dictionaries of the same keys as a table."""
    rows = [row for row in rows if row]
    if not rows:
        return
    shown = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for line in shown:
        cells = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        print("   ", line[0].ljust(widths[0]), *cells)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)
