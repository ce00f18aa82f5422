"""Starts the engine in a worker, once worker/start.mjs has booted Python."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pywebllm_worker

from py_engine.errors import WorkerFailedError
from py_engine.rpc.handler import WebWorkerMLCEngineHandler

logger = logging.getLogger(__name__)


async def start_with_script(url: str, handler: WebWorkerMLCEngineHandler) -> str:
    """Run a user's script (worker_script.py), then start; returns "" or why it failed.

    `url` may be relative to the site. Messages wait until the script has run.
    """
    import js

    from py_engine.rpc.worker_script import run_script

    _set_up_logging()
    try:
        await run_script(js.URL.new(url, pywebllm_worker.siteUrl).href, handler)
    except WorkerFailedError as error:
        return str(error)
    start(handler)
    return ""


def start(handler: WebWorkerMLCEngineHandler) -> None:
    """Serve this worker's messages, those that came during boot first.

    An extension's worker has ports instead, each with its messages that came.
    """
    from pyodide.ffi import create_proxy

    serve = getattr(handler, "set_port", handler.on_message)

    def take(*came: Any) -> None:  # a task that is returned would become an object of JavaScript's
        serve(*came)

    _set_up_logging()
    pywebllm_worker.takeMessages(create_proxy(take))


def _set_up_logging() -> None:
    # Without a handler Python shows warnings only, whatever `set_log_level` says.
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    asyncio.get_event_loop().set_exception_handler(_log_unhandled)


def _log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Show an error of a task that nobody waits for, with its traceback, in the console."""
    error = context.get("exception")
    logger.error("%s", context.get("message", "Unhandled error in a task"), exc_info=error)
