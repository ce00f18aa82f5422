"""Starts the engine in a dedicated worker, once worker/web_worker.mjs has booted Python."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pywebllm_worker

from py_engine.rpc.handler import WebWorkerMLCEngineHandler

logger = logging.getLogger(__name__)


def start(handler: WebWorkerMLCEngineHandler | None = None) -> WebWorkerMLCEngineHandler:
    """Serve this worker's messages, those that came during boot first; returns the handler."""
    from pyodide.ffi import create_proxy

    # Without a handler Python shows warnings only, whatever `set_log_level` says.
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    asyncio.get_event_loop().set_exception_handler(_log_unhandled)
    handler = handler or WebWorkerMLCEngineHandler()
    pywebllm_worker.takeMessages(create_proxy(handler.on_message))
    return handler


def _log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Show an error of a task that nobody waits for, with its traceback, in the console."""
    error = context.get("exception")
    logger.error("%s", context.get("message", "Unhandled error in a task"), exc_info=error)
