"""Fills the figures of `docs/models.md`: python -m tests.conformance.error_table

Every model of `cases.py` runs on the kernels' NumPy references; the table's last three columns are
the number of a family's models and the two worst errors of their logits.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.conformance.cases import CASES
from tests.conformance.fixtures import load_fixture
from tests.conformance.running import decode_on_numpy
from tests.conformance.test_decoder import errors

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
_ROW = re.compile(r"^(\| `(\w+)`.*)\| *\d+ \| *[\d.e-]+ \| *[\d.e-]+ \|$", re.MULTILINE)

Figures = tuple[int, float, float]


def stated_figures(text: str) -> dict[str, Figures]:
    """Return the figures of a page's table by family."""
    found: dict[str, Figures] = {}
    for row in _ROW.finditer(text):
        number, error, same_cache = row[0].strip("|").split("|")[-3:]
        found[row[2]] = (int(number), float(error), float(same_cache))
    return found


def with_figures(text: str, figures: Callable[[str], Figures]) -> str:
    """Return a page with the figures of each family put into its row."""

    def row(found: re.Match[str]) -> str:
        number, error, same_cache = figures(found[2])
        return f"{found[1]}| {number} | {error:.1e} | {same_cache:.1e} |"

    return _ROW.sub(row, text)


def measured(family: str) -> Figures:
    """Run a family's models and return their number and worst errors."""
    names = [case.name for case in CASES if case.family == family]
    found = []
    for name in names:
        fixture = load_fixture(name)
        with tempfile.TemporaryDirectory() as folder:
            found.append(errors(fixture, decode_on_numpy(Path(folder), fixture)))
    plain, same_cache = zip(*found, strict=True)
    return len(names), max(plain), max(same_cache)


if __name__ == "__main__":
    PAGE.write_text(with_figures(PAGE.read_text(encoding="utf-8"), measured), encoding="utf-8")
