"""Which of the page's interpreters the long tests run on.

The cases of the proxy itself (browser/test_proxy.py) run on both. What loads models runs on
MicroPython, and with PYWEBLLM_ALL=1, which takes half as long again, on Pyodide as well; so do, in
part (the marker `sampled`), tests of pages.
"""

from __future__ import annotations

import os

import pytest

IS_ALL = bool(os.environ.get("PYWEBLLM_ALL"))
INTERPRETERS = ["mpy", "py"] if IS_ALL else ["mpy"]
PAGE_INTERPRETERS = ["mpy", pytest.param("py", marks=pytest.mark.sampled)]
