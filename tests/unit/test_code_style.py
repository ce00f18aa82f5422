"""The linters, so that one run of the tests tells all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from py_engine.tooling.steps import ROOT


@pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "mypy"])
def test_linter_is_content(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, f"{command}\n{shown.stdout}"
