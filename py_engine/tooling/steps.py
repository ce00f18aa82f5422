"""Set-up steps: each is named, stamped by what it depends on, and skipped when nothing changed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / ".build"
LOGS = BUILD / "logs"

Result = TypeVar("Result")


class SetupError(Exception):
    """A step of the set-up failed; says which one, why, and what to do about it."""

    def __init__(self, step: str, cause: str, remedy: str) -> None:
        super().__init__(f"step '{step}' failed\n  cause:  {cause}\n  remedy: {remedy}")
        self.step, self.cause, self.remedy = step, cause, remedy


def fingerprint(*parts: str | bytes | Path) -> str:
    """Return a short hash of texts, bytes and the contents of files, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part
        data = data.encode() if isinstance(data, str) else data
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def only_one(name: str) -> Iterator[None]:
    """Hold a lock that other runs of `build.py` in this checkout wait for."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / f"{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name:<12} waiting for another run of build.py ...", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Step:
    """One thing the set-up does, and how to know that it is done already.

    `depends_on` is a fingerprint: the step runs again when it changes or when one of the paths
    in `makes` is gone. `remedy` is what a user should do when it fails.
    """

    name: str
    does: str
    depends_on: str
    makes: Sequence[Path]
    remedy: str

    def run(self, action: Callable[[], None]) -> None:
        """Perform the step unless its result is there already."""
        stamp = BUILD / "stamps" / self.name
        if self._is_done(stamp):
            return
        stamp.unlink(missing_ok=True)
        self.perform(action)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(self.depends_on)

    def perform(self, action: Callable[[], Result]) -> Result:
        """Run `action`, saying so, and return its result; its errors become `SetupError`."""
        print(f"{self.name:<12} {self.does} ...", flush=True)
        started = time.monotonic()
        try:
            result = action()
        except CommandFailed as error:
            raise SetupError(self.name, str(error), self.remedy) from error
        except (OSError, ValueError, LookupError) as error:
            raise SetupError(self.name, f"{type(error).__name__}: {error}", self.remedy) from error
        print(f"{'':<12} done in {time.monotonic() - started:.1f} s", flush=True)
        return result

    def _is_done(self, stamp: Path) -> bool:
        return (
            stamp.is_file()
            and stamp.read_text() == self.depends_on
            and all(path.exists() for path in self.makes)
        )


@dataclass
class CommandFailed(Exception):
    """A command of a step ended with an error; `tail` holds the last lines it printed."""

    command: str
    tail: str
    log: Path = field(default_factory=lambda: LOGS)

    def __str__(self) -> str:
        lines = "\n          ".join(self.tail.splitlines())
        return f"`{self.command}` failed (all of its output: {self.log})\n          {lines}"


def run_command(
    name: str,
    command: Iterable[str | Path],
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command with its output in `.build/logs/<name>.log`; return that output.

    Errors: CommandFailed with the last lines when it cannot be started or its status is not 0.
    """
    words = [str(word) for word in command]
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    shown = " ".join(words[:6]) + (" ..." if len(words) > 6 else "")
    with log.open("w") as output:
        try:
            status = subprocess.run(
                words, cwd=cwd, env=env, stdout=output, stderr=subprocess.STDOUT, check=False
            ).returncode
        except OSError as error:
            raise CommandFailed(shown, str(error), log) from error
    text = log.read_text(errors="replace")
    if status != 0:
        raise CommandFailed(shown, "\n".join(text.strip().splitlines()[-12:]), log)
    return text
