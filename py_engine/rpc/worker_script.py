"""A user's own Python in the engine's worker: `web_worker.mjs?script=URL`."""

from __future__ import annotations

import inspect
import linecache
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING

from py_engine.errors import WorkerFailedError

if TYPE_CHECKING:
    from py_engine.rpc.handler import WebWorkerMLCEngineHandler

# What the script is called in `sys.modules`.
MODULE = "worker_script"


async def run_script(url: str, handler: WebWorkerMLCEngineHandler) -> None:
    """Fetch a Python file, run it as a module and call (and await) its `start(handler)`.

    The file may use `await` at its top, and import the packages that the site has (NumPy).
    Errors: WorkerFailedError with the traceback.
    """
    source = await _fetch(url)
    linecache.cache[url] = (len(source), None, source.splitlines(keepends=True), url)
    module = sys.modules[MODULE] = ModuleType(MODULE)
    try:
        await _run(source, url, module, handler)
    except Exception as error:
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename != url:
            frames = frames.tb_next
        trace = "".join(traceback.format_exception(type(error), error, frames))
        raise WorkerFailedError(f"its script failed. The traceback:\n{trace}") from error


async def _fetch(url: str) -> str:
    import js
    from pyodide.ffi import JsException

    try:
        response = await js.fetch(url)
    except JsException as error:
        raise WorkerFailedError(
            f"its script {url} could not be fetched ({error.message}). Check the address; another "
            "site must allow it (CORS)."
        ) from error
    if not response.ok:
        raise WorkerFailedError(f"its script {url} could not be fetched: HTTP {response.status}.")
    return str(await response.text())


async def _run(
    source: str, url: str, module: ModuleType, handler: WebWorkerMLCEngineHandler
) -> None:
    import pyodide_js
    from pyodide.code import eval_code_async

    await pyodide_js.loadPackagesFromImports(source)
    await eval_code_async(source, module.__dict__, filename=url)
    start = getattr(module, "start", None)
    if not callable(start):
        raise TypeError("the script defines no function `start(handler)`")
    result = start(handler)
    if inspect.isawaitable(result):
        await result
