"""Which files of py_engine run where, read off their import statements. Standard library only.

The worker gets every module whose imports a worker has; the main thread gets what its proxy
imports. Neither is a list kept by hand.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from py_engine.tooling.steps import ROOT

PACKAGE = ROOT / "py_engine"
NOT_FOR_THE_WORKER = PACKAGE / "tooling"
# The top-level modules beside Python's own that a worker has (see worker/boot.mjs).
WORKER_HAS = {"jinja2", "markupsafe", "js", "pyodide", "pywebllm_bridge", "pywebllm_worker"}
PROXY_ROOTS = (
    "py_engine",
    "py_engine.rpc.client",
    "py_engine.rpc.service_worker_client",
    "py_engine.model_cache",
    "py_engine.profile_trace",
)
# What a page on Pyodide gets beside the proxy; MicroPython cannot run OpenAI's client.
PYODIDE_ROOTS = (*PROXY_ROOTS, "py_engine.openai_transport")
# What the pages of a Chrome extension get, whatever they run on.
EXTENSION_ROOTS = ("py_engine", "py_engine.rpc.extension_client", "py_engine.model_cache")


def worker_files() -> dict[str, Path]:
    """Return the files of py_engine that the worker needs, by their path: sources and data.

    Left out is a module that at import time needs something a worker does not have (NumPy, PyPI's
    `tokenizers`), or a module that is left out itself.
    """
    files = [
        path
        for path in sorted(PACKAGE.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    left_out = {path for path in files if path.is_relative_to(NOT_FOR_THE_WORKER)}
    imported = {path: set(_imports(path, late=False)) for path in files if path.suffix == ".py"}
    left_out |= {path for path, names in imported.items() if not all(map(_worker_has, names))}
    while True:
        missing = {path for path in imported if left_out & set(map(_module_file, imported[path]))}
        if missing <= left_out:
            break
        left_out |= missing
    return {path.relative_to(ROOT).as_posix(): path for path in files if path not in left_out}


def proxy_files(roots: Sequence[str] = PROXY_ROOTS) -> dict[str, Path]:
    """Return the files of some modules and of everything of ours they import, by their path."""
    found: set[Path] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        path = _module_file(module)
        if path is not None and path not in found:
            found.add(path)
            waiting += [module.rpartition(".")[0], *_imports(path, late=True)]
    return {path.relative_to(ROOT).as_posix(): path for path in sorted(found)}


def _worker_has(module: str) -> bool:
    top = module.partition(".")[0]
    return top == PACKAGE.name or top in WORKER_HAS or top in sys.stdlib_module_names


def _module_file(module: str) -> Path | None:
    """Return the file of a module of py_engine; None for any other name."""
    if module.partition(".")[0] != PACKAGE.name:
        return None
    base = ROOT.joinpath(*module.split("."))
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


def _imports(path: Path, late: bool) -> Iterator[str]:
    """Yield the absolute names a file imports at run time.

    `late` includes what it may do without at import time: imports in functions and `try` blocks.
    For `from a import b` both `a` and `a.b` are yielded, since `b` may be a module.
    """
    package = path.relative_to(ROOT).parent.parts
    waiting: list[ast.AST] = [ast.parse(path.read_bytes(), str(path))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Try):
            waiting += ast.iter_child_nodes(node)
