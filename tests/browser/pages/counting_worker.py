"""Runs in the engine's worker: tells what its handler still holds, at `custom_request("count")`."""

import gc
import sys

import pyodide_js


def start(handler):
    """Replace the handler's custom request."""

    def count(_name, _message):
        gc.collect()
        held = {
            "streams": len(handler.owner.streams),
            "tasks": len(handler.owner.tasks),
            "wasm_bytes": pyodide_js._module.HEAPU8.length,
            "python_blocks": sys.getallocatedblocks(),
        }
        handler.post_message({"kind": "held", "uuid": "", "content": held})

    handler.custom_request = count
