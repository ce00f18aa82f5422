"""The static site: which file goes where, and writing them to a folder. Standard library only.

Any web server can serve the folder, and Chrome can load it as an extension. `__BUILD__` in our own
pages and worker files becomes the build's id, so that their URLs change with their contents.
"""

from __future__ import annotations

import base64
import filecmp
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from py_engine.tooling import imports, parts
from py_engine.tooling.environment import ensure_node, ensure_npm
from py_engine.tooling.snippets import gallery_index
from py_engine.tooling.steps import BUILD, ROOT, SetupError, fingerprint, only_one

DEFAULT_SITE = BUILD / "site"
MARKER = "build.json"
BUILD_TOKEN = b"__BUILD__"
OWN_TEXT = {".html", ".css", ".mjs", ".js", ".py", ".json"}
NOT_SERVED = ("package.json", "package-lock.json", "models/training")
PAGE_DATA = ("py_engine/model_list.json",)
PYODIDE_CORE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")

# Folder of the site -> (folder of node_modules, files in it).
NPM_FILES = {
    "pyodide": ("pyodide", PYODIDE_CORE),
    "pyscript": ("@pyscript/core/dist", ("*.js", "*.css")),
    "micropython": (
        "@micropython/micropython-webassembly-pyscript",
        ("micropython.mjs", "micropython.wasm"),
    ),
    "marked": ("marked/lib", ("marked.esm.js",)),
    "dompurify": ("dompurify/dist", ("purify.es.mjs",)),
    "json-schema": ("@cfworker/json-schema/dist/esm", ("*.js",)),
}

# Folder of the site -> UMD file of node_modules, with WebAssembly in it.
WRAPPED_FILES = {
    "tokenizers": "@mlc-ai/web-tokenizers/lib/index.js",
    "xgrammar": "@mlc-ai/web-xgrammar/lib/index.js",
}
WRAPPER = "library_wrapper.mjs"
EMBEDDED = re.compile(rb"data:application/octet-stream;base64,([A-Za-z0-9+/=]+)")

EXTENSION = "extension"  # its folder in worker/
EXTENSION_MANIFEST = "manifest.json"

Files: TypeAlias = dict[str, Path | bytes]  # path in the site -> source file or contents
NumPy: TypeAlias = Literal["required", "optional", "if there"]


@dataclass(frozen=True)
class Site:
    """A site that was written: where, and the id of the build in it."""

    folder: Path
    build_id: str


def build_site(folder: Path = DEFAULT_SITE, numpy: NumPy = "if there") -> Site:
    """Make all parts and write the site to `folder`; `numpy` says how hard to try for NumPy.

    Errors: SetupError, also when NumPy is "required" and cannot be had.
    """
    with only_one("site"):
        node = ensure_node()
        modules = ensure_npm(node)
        pyodide = modules / "pyodide"
        _fetch_numpy(pyodide, numpy)
        archive = parts.worker_archive()
        snapshot = parts.ensure_snapshot(node, pyodide, archive)
        files = {
            **_npm_files(modules),
            **_web_files(),
            **_worker_files(),
            **_extension_files(),
            **_wrapped_files(modules),
            **_proxy_files(),
            **_pyodide_files(pyodide),
            "py_engine.zip": archive,
            "boot.snap.gz": snapshot,
        }
        build_id = _build_id(files)
        _write(folder, files, build_id)
    return Site(folder, build_id)


def _fetch_numpy(pyodide: Path, numpy: NumPy) -> None:
    if numpy == "if there":
        return
    try:
        parts.ensure_optional_packages(pyodide)
    except SetupError as error:
        if numpy == "required":
            raise
        print(f"{error}\n{'numpy':<12} going on without it", flush=True)


def _npm_files(modules: Path) -> Files:
    files: Files = {}
    for target, (source, patterns) in NPM_FILES.items():
        for pattern in patterns:
            found = sorted((modules / source).glob(pattern))
            if not found:
                cause = f"the npm package folder {source} has no {pattern}"
                raise SetupError("site", cause, "delete .build/npm and run this again")
            files |= {f"{target}/{path.name}": path for path in found}
        files |= _licences(modules, source, target)
    return files


def _licences(modules: Path, source: str, target: str) -> Files:
    package = Path(*Path(source).parts[: 2 if source.startswith("@") else 1])
    return {f"{target}/{path.name}": path for path in (modules / package).glob("LICENSE*")}


def _web_files() -> Files:
    """The pages, and the documents and the list of snippets that they show."""
    web = ROOT / "web"
    paths = {path.relative_to(web).as_posix(): path for path in sorted(web.rglob("*"))}
    files: Files = {
        name: path
        for name, path in paths.items()
        if path.is_file() and "__pycache__" not in name and not name.startswith(NOT_SERVED)
    }
    files |= {f"docs/{path.name}": path for path in sorted((ROOT / "docs").glob("*.md"))}
    files["gallery/snippets.json"] = json.dumps(gallery_index(), indent=1).encode()
    return files


def _worker_files() -> Files:
    build_time = {"make_snapshot.mjs", WRAPPER}
    paths = [path for path in sorted((ROOT / "worker").iterdir()) if path.is_file()]
    return {f"worker/{path.name}": path for path in paths if path.name not in build_time}


def _extension_files() -> Files:
    """What makes the site a Chrome extension, too: Chrome wants the manifest at the top."""
    folder = ROOT / "worker" / EXTENSION
    paths = [path for path in sorted(folder.iterdir()) if path.is_file()]
    files: Files = {f"worker/{EXTENSION}/{path.name}": path for path in paths}
    files[EXTENSION_MANIFEST] = files.pop(f"worker/{EXTENSION}/{EXTENSION_MANIFEST}")
    return files


def _wrapped_files(modules: Path) -> Files:
    """Return libraries as modules that make instances of them, and their WebAssembly beside."""
    wrapper = (ROOT / "worker" / WRAPPER).read_bytes()
    files: Files = {}
    for target, source in WRAPPED_FILES.items():
        library = (modules / source).read_bytes()
        found = EMBEDDED.findall(library)
        if len(found) != 1:
            cause = f"{source} has {len(found)} parts of WebAssembly in it, but must have one"
            raise SetupError("site", cause, "take the version that package-lock.json names")
        script = library.replace(found[0], b"")
        files[f"{target}/index.mjs"] = wrapper.replace(b"// __LIBRARY__", script)
        files[f"{target}/index.wasm"] = base64.b64decode(found[0])
        files |= _licences(modules, source, target)
    return files


def _pyodide_files(pyodide: Path) -> Files:
    """The packages that are here and a lock file with only them, lest another host be asked."""
    info = json.loads((pyodide / "pyodide-lock.json").read_text())["info"]
    entries = {
        name: entry
        for name, entry in parts.optional_packages(pyodide).items()
        if (parts.PYODIDE_PACKAGES / entry["file_name"]).exists()
    }
    lock = json.dumps({"info": info, "packages": entries}, indent=1).encode()
    wheels = [parts.PYODIDE_PACKAGES / entry["file_name"] for entry in entries.values()]
    return {"pyodide/pyodide-lock.json": lock} | {f"pyodide/{path.name}": path for path in wheels}


def _proxy_files() -> Files:
    """What pages need: the proxy's sources, PyScript's configurations, the list of models."""
    models = imports.PACKAGE / "model_list.json"  # pages offer what the worker knows
    files: Files = {"py_engine/model_list.json": models}
    for kind, interpreter, roots in (
        ("py", "./pyodide/pyodide.mjs", imports.PYODIDE_ROOTS),
        ("mpy", "./micropython/micropython.mjs", imports.PROXY_ROOTS),
        ("extension", "./micropython/micropython.mjs", imports.EXTENSION_ROOTS),
    ):
        sources = imports.proxy_files(roots)
        listed = {f"./{name}?v={BUILD_TOKEN.decode()}": f"./{name}" for name in sources}
        config = {"interpreter": interpreter, "files": listed}
        files |= sources
        files[f"pyscript-{kind}.json"] = json.dumps(config, indent=1).encode()
    engine = {"interpreter": f"./worker/pyscript_engine.mjs?v={BUILD_TOKEN.decode()}"}
    files["pyscript-py-engine.json"] = json.dumps(engine, indent=1).encode()
    return files


def _build_id(files: Files) -> str:
    pieces: list[str | bytes | Path] = []
    for name, content in sorted(files.items()):
        pieces += [name, content]
    return fingerprint(*pieces)


def _write(folder: Path, files: Files, build_id: str) -> None:
    """Make `folder` hold exactly these files and the marker; untouched ones keep their times."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise SetupError(
            "site",
            f"{folder} is not empty and was not made by `build.py site`",
            "name an empty or a new folder",
        )
    folder.mkdir(parents=True, exist_ok=True)
    wanted: Files = {name: _with_build_id(name, files[name], build_id) for name in files}
    wanted[MARKER] = json.dumps({"id": build_id}).encode()
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    for name, content in wanted.items():
        _write_file(folder / name, content)


def _with_build_id(name: str, content: Path | bytes, build_id: str) -> Path | bytes:
    folder = name.partition("/")[0]
    is_ours = Path(name).suffix in OWN_TEXT and folder not in {"models", *NPM_FILES}
    if not is_ours:
        return content
    data = content.read_bytes() if isinstance(content, Path) else content
    return data.replace(BUILD_TOKEN, build_id.encode())


def _write_file(path: Path, content: Path | bytes) -> None:
    """Write a file unless it is the same already; a hard link to it elsewhere stays as it is."""
    if isinstance(content, Path):
        is_there = path.is_file() and filecmp.cmp(content, path, shallow=False)
    else:
        is_there = path.is_file() and path.read_bytes() == content
    if is_there:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)
