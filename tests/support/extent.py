"""How much of the long tests runs: with PYWEBLLM_ALL=1 everything, which takes three times as long.

Without it, one in four cases of a test with the marker `sampled` runs. The cases of the proxy itself
(browser/test_proxy.py) run on both of the page's interpreters; what loads models runs on
MicroPython.
"""

from __future__ import annotations

import os

import pytest

IS_ALL = bool(os.environ.get("PYWEBLLM_ALL"))
INTERPRETERS = ["mpy", "py"] if IS_ALL else ["mpy"]
PAGE_INTERPRETERS = ["mpy", pytest.param("py", marks=pytest.mark.sampled)]
RANDOM_SEEDS = range(4) if IS_ALL else range(2)
