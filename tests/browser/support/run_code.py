"""Both ends of the `engine_worker` fixture: values as JSON text, and running code in the worker."""

from __future__ import annotations

import base64
import json
from typing import Any


def pack(value: Any) -> str:
    """Return JSON text of a value made of JSON types and bytes."""
    return json.dumps(value, default=_pack_bytes)


def _pack_bytes(value: Any) -> dict[str, str]:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(f"a {type(value).__name__} cannot pass between a test and the worker")


def unpack(text: str) -> Any:
    """Return the value that `pack` made the text of."""
    return json.loads(text, object_hook=_unpack_bytes)


def _unpack_bytes(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["$bytes"]) if value.keys() == {"$bytes"} else value


async def run(code: str, values: str) -> str:
    """Run code (with `await` at its top level) in a namespace of `values`; its last expression."""
    from pyodide.code import eval_code_async

    namespace = {"__name__": "engine_worker", **unpack(values)}
    return pack(await eval_code_async(code, namespace, filename="engine_worker_code.py"))
