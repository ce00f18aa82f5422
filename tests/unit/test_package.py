"""The public names of py_engine."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import py_engine

ROOT = Path(py_engine.__file__).parent.parent


IN_BROWSERS_ONLY = {"register_service_worker"}


def test_every_public_name_is_there_and_nothing_else_is_promised() -> None:
    assert sorted(py_engine._MODULE_OF) == [n for n in py_engine.__all__ if n != "__version__"]
    here = set(py_engine.__all__) - IN_BROWSERS_ONLY
    assert all(getattr(py_engine, name) is not None for name in here)
    for name in IN_BROWSERS_ONLY:
        with pytest.raises(ModuleNotFoundError, match="'js'"):
            getattr(py_engine, name)


def test_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert py_engine.__version__ == project["version"]


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'MLCEngin'"):
        _ = py_engine.MLCEngin


def test_importing_the_package_loads_no_engine() -> None:
    code = "import sys, py_engine; print([m for m in sys.modules if m.startswith('py_engine.')])"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
