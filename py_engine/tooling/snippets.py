"""The gallery's snippets: what their headers say, for the page and the tests.

A header is the module's docstring: a title, a description, and at its end lines of `Key: value`.
Standard library only.
"""

from __future__ import annotations

import ast
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from py_engine.tooling.steps import ROOT, SetupError

FOLDER = ROOT / "web" / "gallery" / "snippets"
SECTIONS = ("First steps", "Answers of a given form", "Control", "Models", "Where the engine runs")
# What a header's lines mean; all but the first may be left out.
FIELDS = {"Section": "section", "WebLLM": "webllm", "Docs": "docs", "Types": "types"}


@dataclass(frozen=True)
class Snippet:
    """A snippet: its file's name without `.py`, and its header."""

    name: str
    title: str
    description: str
    section: str
    webllm: list[str]  # WebLLM's examples that it stands for
    docs: list[str]  # files in docs/
    types: list[str]  # what can run it: "mpy", "py", "py-engine" (pyscript-TYPE.json)


def read_snippet(path: Path) -> Snippet:
    """Return what a snippet's header says.

    Errors: SetupError, naming the file and what is wrong with its header.
    """
    text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    title, _, rest = text.partition("\n")
    description, _, lines = rest.strip().rpartition("\n\n")
    fields = dict(line.split(": ", 1) for line in lines.splitlines() if ": " in line)
    if not title or not description or not set(fields) <= set(FIELDS):
        raise _wrong_header(path, "it needs a title, a description, and lines of " + str([*FIELDS]))
    if fields.get("Section") not in SECTIONS:
        raise _wrong_header(path, f"its Section must be one of {SECTIONS}")
    lists = {FIELDS[key]: fields.get(key, "").split() for key in ("WebLLM", "Docs", "Types")}
    lists["types"] = lists["types"] or ["mpy", "py"]
    return Snippet(path.stem, title, " ".join(description.split()), fields["Section"], **lists)


def read_snippets() -> list[Snippet]:
    """Return all snippets in the gallery's order: by section, then by title."""
    snippets = [read_snippet(path) for path in FOLDER.glob("*.py")]
    return sorted(snippets, key=lambda each: (SECTIONS.index(each.section), each.title))


def gallery_index() -> list[dict[str, Any]]:
    """Return the sections of the gallery with their snippets, as the page reads them."""
    snippets = [asdict(snippet) for snippet in read_snippets()]
    return [
        {"title": title, "snippets": [each for each in snippets if each["section"] == title]}
        for title in SECTIONS
    ]


def _wrong_header(path: Path, cause: str) -> SetupError:
    return SetupError(
        "gallery",
        f"the header of {path.relative_to(ROOT)} cannot be used: {cause}",
        "write its docstring like those of the other snippets",
    )
