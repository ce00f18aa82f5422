"""Which of the page's interpreters the long tests run on.

The cases of the proxy itself (browser/test_proxy.py) run on both. What loads models runs on
MicroPython, and with PYWEBLLM_ALL=1, which takes half as long again, on Pyodide as well.
"""

from __future__ import annotations

import os

IS_ALL = bool(os.environ.get("PYWEBLLM_ALL"))
INTERPRETERS = ["mpy", "py"] if IS_ALL else ["mpy"]
