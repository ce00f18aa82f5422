"""The static site: what is in it, and that it changes when and only when a source does."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from py_engine import __version__
from py_engine.tooling import imports, parts
from py_engine.tooling.site import MARKER, Site, build_site
from py_engine.tooling.steps import ROOT, SetupError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty py_engine in a folder of its own, for the import graph to look at."""
    folder = tmp_path / "py_engine"
    (folder / "rpc").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "rpc" / "__init__.py").touch()
    monkeypatch.setattr(imports, "ROOT", tmp_path)
    monkeypatch.setattr(imports, "PACKAGE", folder)
    monkeypatch.setattr(imports, "NOT_FOR_THE_WORKER", folder / "tooling")
    return folder


@pytest.mark.parametrize(
    ("source", "is_for_the_worker"),
    [
        ("import json, asyncio, js", True),
        ("import jinja2.sandbox", True),
        ("import pywebllm_bridge as bridge", True),
        ("import numpy as np", False),
        ("from tokenizers import Tokenizer", False),
        ("def f():\n    import numpy", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy", True),
        ("try:\n    import jsffi\nexcept ImportError:\n    pass", True),
        ("from py_engine.needs_numpy import x", False),
        ("from .needs_numpy import x", False),
        ("from . import needs_numpy", False),
        ("def f():\n    from py_engine import needs_numpy", True),
    ],
)
def test_worker_gets_modules_whose_imports_it_has(
    package: Path, source: str, is_for_the_worker: bool
) -> None:
    (package / "needs_numpy.py").write_text("import numpy")
    (package / "module.py").write_text(source)
    assert ("py_engine/module.py" in imports.worker_files()) == is_for_the_worker


def test_worker_gets_data_but_not_tooling(package: Path) -> None:
    (package / "kernel.wgsl").touch()
    (package / "tooling").mkdir()
    (package / "tooling" / "site.py").touch()
    names = set(imports.worker_files())
    assert names == {"py_engine/__init__.py", "py_engine/rpc/__init__.py", "py_engine/kernel.wgsl"}


def test_proxy_gets_what_its_client_imports_and_no_more(package: Path) -> None:
    (package / "rpc" / "client.py").write_text("def f():\n    from py_engine.names import x")
    (package / "names.py").write_text("from py_engine.rpc import client")
    (package / "other.py").touch()
    assert {Path(name).name for name in imports.proxy_files()} == {
        "__init__.py",
        "client.py",
        "names.py",
    }


def test_worker_archive_is_reproducible_and_pure() -> None:
    archive = parts.worker_archive()
    assert archive == parts.worker_archive()
    names = zipfile.ZipFile(io.BytesIO(archive)).namelist()
    assert {"jinja2/sandbox.py", "markupsafe/_native.py", "py_engine/errors.py"} <= set(names)
    assert not [name for name in names if name.endswith((".so", ".pyc", ".pyd"))]
    assert any("markupsafe" in name and "LICENSE" in name for name in names)


def test_site_refers_to_its_own_build(site: Site) -> None:
    assert json.loads((site.folder / MARKER).read_text()) == {"id": site.build_id}
    for path in [*site.folder.glob("*.*"), *site.folder.glob("worker/**/*.*")]:
        if path.suffix in {".html", ".mjs", ".json", ".py", ".css"}:
            assert "__BUILD__" not in path.read_text(), path
    assert f"./start.mjs?v={site.build_id}" in (site.folder / "worker/web_worker.mjs").read_text()


def test_site_holds_what_its_scripts_ask_for(site: Site) -> None:
    for kind in ("py", "mpy", "py-engine"):
        config = json.loads((site.folder / f"pyscript-{kind}.json").read_text())
        for source in (config["interpreter"], *config.get("files", ())):
            assert (site.folder / source.partition("?")[0]).is_file()
    packages = json.loads((site.folder / "pyodide/pyodide-lock.json").read_text())["packages"]
    assert {"numpy", "micropip", "openai"} <= set(packages)
    for entry in packages.values():
        assert (site.folder / "pyodide" / entry["file_name"]).is_file()
        assert {name.replace("_", "-") for name in entry["depends"]} <= set(packages)


def test_pyodide_pages_get_openais_transport_and_micropython_pages_do_not(site: Site) -> None:
    for kind, wanted in (("py", True), ("mpy", False)):
        config = json.loads((site.folder / f"pyscript-{kind}.json").read_text())
        files = set(config["files"].values())
        assert ("./py_engine/openai_transport/event_stream.py" in files) == wanted
        assert "./py_engine/rpc/client.py" in files


def test_site_is_a_chrome_extension(site: Site) -> None:
    manifest = json.loads((site.folder / "manifest.json").read_text())
    assert manifest["version"] == __version__
    popup = manifest["action"]["default_popup"].partition("#")[0]
    worker = manifest["background"]["service_worker"]
    config = json.loads((site.folder / "pyscript-extension.json").read_text())
    assert "./py_engine/rpc/extension_client.py" in config["files"].values()
    for name in (popup, worker, *manifest["icons"].values()):
        assert (site.folder / name).is_file(), name
    # Chrome refuses an extension with such names at its top.
    assert not list(site.folder.glob("_*"))


def test_site_has_no_sources_that_nobody_asks_for(site: Site) -> None:
    names = {path.relative_to(site.folder).as_posix() for path in site.folder.rglob("*")}
    assert not [name for name in names if name.startswith(("models/training", "package"))]
    assert not [name for name in names if name.endswith(".map") or "tooling" in name]


def test_second_build_changes_nothing(site: Site) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in site.folder.rglob("*")}

    before = times()
    assert build_site(site.folder).build_id == site.build_id
    assert times() == before


def test_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(SetupError, match=r"is not empty.*\n.*name an empty or a new folder"):
        build_site(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_npm_lock_names_no_host() -> None:
    lock = json.loads((ROOT / "web" / "package-lock.json").read_text())
    entries = [entry for name, entry in lock["packages"].items() if name]
    assert entries
    assert all("resolved" not in entry and entry["integrity"] for entry in entries)
