"""Finding the tools around the project, and getting those that are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from py_engine.tooling import environment, steps
from py_engine.tooling.steps import SetupError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the whole of PATH, and a `.build` of the test's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(steps, "BUILD", tmp_path / "build")
    monkeypatch.setattr(environment, "BROWSERS", tmp_path / "browsers")
    return folder


def put_program(folder: Path, name: str, output: str = "") -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{output}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("version", ["v20.20.2", "v24.1.0"])
def test_node_on_path_is_used(path: Path, version: str) -> None:
    node, npm = put_program(path, "node", version), put_program(path, "npm")
    assert environment.ensure_node() == environment.Node(node, (npm,))


@pytest.mark.parametrize("programs", [{}, {"node": "v18.19.0", "npm": ""}, {"node": "v22.0.0"}])
def test_node_comes_from_pypi_when_missing_old_or_without_npm(
    path: Path, monkeypatch: pytest.MonkeyPatch, programs: dict[str, str]
) -> None:
    for name, output in programs.items():
        put_program(path, name, output)
    installed: list[str] = []
    monkeypatch.setattr(
        environment, "pip_install", lambda *packages, log: installed.extend(packages)
    )
    found = environment.ensure_node()
    assert installed == [environment.NODE_FROM_PYPI]
    assert found.npm == (found.node, found.npm[1])
    assert found.environment()["PATH"].startswith(str(found.node.parent))


def test_chromium_on_path_is_preferred_to_playwrights(path: Path) -> None:
    assert environment.find_chromium() is None
    own = environment.BROWSERS / "chromium-1234" / "chrome-linux64" / "chrome"
    own.parent.mkdir(parents=True)
    own.touch()
    assert environment.find_chromium() == own
    chromium = put_program(path, "chromium")
    assert environment.find_chromium() == environment.ensure_chromium() == chromium


@pytest.mark.parametrize("from_debian", [True, False])
def test_missing_chromium_is_installed_and_looked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, from_debian: bool
) -> None:
    name = "_install_from_debian" if from_debian else "_install_from_playwright"
    monkeypatch.setattr(environment, "_is_debian_root", lambda: from_debian)
    monkeypatch.setattr(environment, name, lambda: put_program(path, "chromium"))
    assert environment.ensure_chromium() == path / "chromium"


def test_chromium_that_did_not_arrive_is_a_clear_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_is_debian_root", lambda: True)
    monkeypatch.setattr(environment, "_install_from_debian", lambda: None)
    with pytest.raises(SetupError, match=r"(?s)step 'chromium'.*remedy: install Chromium"):
        environment.ensure_chromium()


def test_everything_is_pinned() -> None:
    packages = environment.pinned_packages()
    constraints = environment.CONSTRAINTS.read_text().split()
    assert all("==" in package for package in [*packages, *constraints])
    pinned = {constraint.lower() for constraint in constraints}
    assert {package.lower() for package in packages} <= pinned
