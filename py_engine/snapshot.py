"""What a worker's memory snapshot holds, and how Python wakes up in it.

The snapshot is made in Node.js at build time (`worker/make_snapshot.mjs`) after `freeze()` and
restored in the browser (`worker/boot.mjs`) before `thaw()`. A snapshot keeps Python's memory, but
neither files nor JavaScript objects. So at import time a module of py_engine may `import js`, names
of `pyodide.ffi` and the worker's own modules (`import pywebllm_bridge`), but not read anything from
them: `js.navigator` and `pywebllm_bridge.submit` only exist in the browser, after `connect()`.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import sys
from importlib.machinery import FileFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyodide.ffi import JsProxy

# Third-party modules that the engine imports late, so that they too are in the snapshot.
LATE_IMPORTS = ("jinja2.ext", "jinja2.sandbox")

# What worker/boot.mjs hands over: until then, empty modules stand in for these.
WORKER_MODULES = ("pywebllm_bridge", "pywebllm_worker")

# Modules that could not be imported, and why: a broken one must not keep others from being worked
# on. It fails again, in full, where it is used; a test asserts that there is none.
not_imported: dict[str, str] = {}

_frozen_files: dict[Path, bytes] = {}


def import_everything() -> None:
    """Import every module of py_engine that is here and what they need; fill `not_imported`.

    A worker has only the modules it needs (`py_engine/tooling/parts.py` leaves the others out).
    """
    import py_engine

    for name in WORKER_MODULES:
        sys.modules.setdefault(name, ModuleType(name))
    found = pkgutil.walk_packages(py_engine.__path__, "py_engine.", onerror=lambda name: None)
    for name in [*LATE_IMPORTS, *(module.name for module in found)]:
        try:
            importlib.import_module(name)
        except Exception as error:
            not_imported[name] = f"{type(error).__name__}: {error}"


def freeze(folder: Path) -> int:
    """Import everything and keep the files under `folder` in memory; return how many."""
    import_everything()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            _frozen_files[path] = path.read_bytes()
    return len(_frozen_files)


def thaw() -> None:
    """Write the kept files back and give this worker its own random numbers.

    The files are needed by package data, late imports and the source lines of tracebacks.
    """
    for folder in {path.parent for path in _frozen_files}:
        folder.mkdir(parents=True, exist_ok=True)
    for path, data in _frozen_files.items():
        path.write_bytes(data)
    _frozen_files.clear()
    for finder in sys.path_importer_cache.values():
        if isinstance(finder, FileFinder):
            finder.invalidate_caches()  # importlib's own function imports for half a second first
    random.seed()


def connect(modules: JsProxy) -> None:
    """Fill the worker's modules with the members of JavaScript objects: {name: {member: value}}."""
    for name, members in _entries(modules):
        module = sys.modules.setdefault(name, ModuleType(name))
        for member, value in _entries(members):
            setattr(module, member, value)


def _entries(members: JsProxy) -> list[tuple[str, Any]]:
    return [(key, getattr(members, key)) for key in members.object_keys()]
