"""Set-up steps: done once, again when what they depend on changes, failures say what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from py_engine.tooling import steps
from py_engine.tooling.steps import SetupError, Step, fingerprint, run_command


@pytest.fixture(autouse=True)
def build_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(steps, "BUILD", tmp_path / "build")
    monkeypatch.setattr(steps, "LOGS", tmp_path / "build" / "logs")
    return tmp_path


def count_runs(product: Path, depends_on: str, runs: list[str]) -> None:
    def action() -> None:
        runs.append(depends_on)
        product.touch()

    Step("paint", "paint the wall", depends_on, [product], "buy paint").run(action)


def test_step_runs_again_only_when_needed(tmp_path: Path) -> None:
    product, runs = tmp_path / "wall", list[str]()
    count_runs(product, "red", runs)
    count_runs(product, "red", runs)
    assert runs == ["red"]
    count_runs(product, "blue", runs)
    assert runs == ["red", "blue"]
    product.unlink()
    count_runs(product, "blue", runs)
    assert runs == ["red", "blue", "blue"]


def test_failed_step_names_step_cause_and_remedy_and_is_not_done(tmp_path: Path) -> None:
    product = tmp_path / "wall"
    step = Step("paint", "paint the wall", "red", [product], "buy paint")
    command = [sys.executable, "-c", "import sys; print('no paint'); sys.exit(3)"]
    with pytest.raises(SetupError) as caught:
        step.run(lambda: str(run_command("paint", command)) and None)
    assert "step 'paint' failed" in str(caught.value)
    assert "no paint" in caught.value.cause
    assert "paint.log" in caught.value.cause
    assert caught.value.remedy == "buy paint"
    runs: list[str] = []
    count_runs(product, "red", runs)
    assert runs == ["red"]


def test_missing_program_is_a_clear_error() -> None:
    step = Step("paint", "paint the wall", "red", [], "buy paint")
    with pytest.raises(SetupError, match="no-such-program"):
        step.run(lambda: str(run_command("paint", ["no-such-program"])) and None)


def test_fingerprint_tells_contents_and_borders_apart(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("ab")
    assert fingerprint(file) == fingerprint("ab") == fingerprint(b"ab")
    assert len({fingerprint("a", "b"), fingerprint("ab"), fingerprint("b", "a")}) == 3
