"""build.py's command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import build
from py_engine.tooling.steps import ROOT


def test_help_lists_every_command_without_a_set_up() -> None:
    shown = subprocess.run(
        [sys.executable, "-S", str(ROOT / "build.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for command in ("demo", "serve", "site", "test", "bench"):
        assert f"\n    {command} " in shown


@pytest.mark.parametrize(
    "arguments", [["-k", "foo"], ["tests/unit", "-x", "-q"], ["--adapter", "hardware"], []]
)
def test_arguments_after_test_go_to_pytest(arguments: list[str]) -> None:
    options = build.parse_arguments(["test", *arguments])
    assert options.run is build.test
    assert options.pytest_arguments == arguments


def test_defaults() -> None:
    assert build.parse_arguments(["serve"]).port == 8000
    assert build.parse_arguments(["site", "public"]).folder == Path("public")
    assert build.parse_arguments(["demo"]).prompt is None
    assert build.parse_arguments(["bench", "--json"]).json
    assert build.parse_arguments(["bench", "--tune"]).tune
    assert build.parse_arguments(["bench", "--profile"]).profile
    assert build.parse_arguments(["bench", "--trace", "x.json"]).trace == Path("x.json")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bake"],
        ["serve", "--port", "high"],
        ["bench", "--tune", "--profile"],
        ["bench", "--tune", "--trace", "x.json"],
    ],
)
def test_mistakes_end_with_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build.parse_arguments(arguments)
    assert caught.value.code == 2
    assert "usage: build.py" in capsys.readouterr().err
