"""Imports point downward: no layer of the engine knows who is above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "py_engine"

# From the top to the bottom; modules of one row may import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("tooling", "snapshot"),
    ("rpc", "openai_transport", "model_cache"),
    (
        "engine",
        "engine_config",
        "chat",
        "chat_prompt",
        "chat_images",
        "images_browser",
        "text_completion",
        "replies",
        "response_job",
        "response_stream",
        "resumable",
        "grammars",
        "model_set",
        "model_loading",
        "cached_models",
        "loaded_model",
        "loaded_embedder",
        "seats",
        "turns",
        "merged",
        "host",
        "browser_host",
        "profile_trace",
        "progress",
        "log_levels",
    ),
    ("generation", "conversation"),
    ("api", "tokenizer", "grammar", "output"),
    ("models", "weights"),
    ("storage", "kernels"),
    ("gpu", "config", "chat_config"),
    ("model_record", "integrity", "abort"),
    ("model_selection", "json_fields", "json_values", "model_address", "errors"),
)
RANKS = {name: rank for rank, row in enumerate(LAYERS) for name in row}


def parts() -> list[str]:
    """Return the folders and top modules of py_engine."""
    found = (path for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir())
    return sorted({path.stem for path in found} - {"__init__", "__pycache__"})


def imported_parts(tree: ast.AST) -> Iterator[str]:
    """Yield the parts that a module imports at run time."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("py_engine"):
            inner = (node.module or "").split(".")[1:2]
            yield from inner or [alias.name for alias in node.names]
        yield from imported_parts(node)


def test_every_part_has_its_layer() -> None:
    assert parts() == sorted(RANKS)


@pytest.mark.parametrize("part", parts())
def test_imports_point_downward(part: str) -> None:
    folder = PACKAGE / part
    for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]:
        for imported in imported_parts(ast.parse(path.read_text(encoding="utf-8"))):
            assert RANKS[imported] >= RANKS[part], f"{path.name} imports {imported}"
