"""What pages import must also run on MicroPython: a walk over the imports by AST.

tests/browser/test_proxy.py runs it there for real; this test names the line without a browser.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START = (
    "py_engine.profile_trace",
    "py_engine.rpc.client",
    "py_engine.rpc.extension_browser",
    "py_engine.rpc.extension_client",
    "py_engine.rpc.service_worker_client",
    "py_engine.rpc.transport_browser",
    "py_engine.rpc.transport_service_worker",
)
# What MicroPython 1.28 has, and the modules of the browser's interpreters.
ALLOWED = {"asyncio", "gc", "json", "logging", "sys", "weakref"}
ALLOWED |= {"js", "jsffi", "pyodide.ffi", "pyscript"}
# Syntax that MicroPython does not have.
FORBIDDEN_SYNTAX = (ast.Match, ast.TryStar, ast.Yield, ast.YieldFrom)


def source_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Walk over what runs, without `if TYPE_CHECKING:` and without annotations."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        yield node
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns"):
                children = value if isinstance(value, list) else [value]
                pending += [child for child in children if isinstance(child, ast.AST)]


def imports(tree: ast.Module) -> set[str]:
    names = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def closure() -> dict[str, ast.Module]:
    """Return every module of py_engine that the proxy imports."""
    trees: dict[str, ast.Module] = {}
    pending = list(START)
    while pending:
        module = pending.pop()
        if module in trees:
            continue
        trees[module] = ast.parse(source_of(module).read_text(encoding="utf-8"))
        pending += [name for name in imports(trees[module]) if name.startswith("py_engine")]
        pending += [module.rpartition(".")[0]] if "." in module else []
    return trees


CLOSURE = closure()


@pytest.mark.parametrize("module", sorted(CLOSURE))
def test_only_modules_that_micropython_has_are_imported(module: str) -> None:
    foreign = {name for name in imports(CLOSURE[module]) if not name.startswith("py_engine")}
    assert foreign <= ALLOWED


@pytest.mark.parametrize("module", sorted(CLOSURE))
def test_no_syntax_that_micropython_lacks(module: str) -> None:
    found = []
    for node in statements(CLOSURE[module]):
        is_spread = isinstance(node, ast.Dict) and None in node.keys
        is_unpacked = isinstance(node, ast.List | ast.Tuple | ast.Set) and any(
            isinstance(item, ast.Starred) and isinstance(item.ctx, ast.Load) for item in node.elts
        )
        is_positional = isinstance(node, ast.arguments) and bool(node.posonlyargs)
        is_async = isinstance(node, ast.comprehension) and bool(node.is_async)
        if isinstance(node, FORBIDDEN_SYNTAX) or any(
            (is_spread, is_unpacked, is_positional, is_async)
        ):
            found.append(ast.unparse(node))
    assert found == []


def test_the_closure_is_small_and_knows_nothing_of_the_engine() -> None:
    assert set(CLOSURE) == {
        "py_engine",
        "py_engine.abort",
        "py_engine.api",
        "py_engine.api.endpoints",
        "py_engine.api.objects",
        "py_engine.errors",
        "py_engine.json_values",
        "py_engine.model_selection",
        "py_engine.profile_trace",
        "py_engine.rpc",
        "py_engine.rpc.channel",
        "py_engine.rpc.chunk_stream",
        "py_engine.rpc.client",
        "py_engine.rpc.client_values",
        "py_engine.rpc.extension_browser",
        "py_engine.rpc.extension_client",
        "py_engine.rpc.images",
        "py_engine.rpc.messages",
        "py_engine.rpc.model_requests",
        "py_engine.rpc.service_worker_client",
        "py_engine.rpc.transport",
        "py_engine.rpc.transport_browser",
        "py_engine.rpc.transport_service_worker",
        "py_engine.storage",
        "py_engine.storage.persist_browser",
        "py_engine.storage.picked",
    }
