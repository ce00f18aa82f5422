"""How much of the long tests runs: with PYWEBLLM_ALL=1 everything, which takes three times as long.

Without it one in four cases of tests with the marker `sampled` runs, and what needs an interpreter
on a page runs on MicroPython, some of it on Pyodide, too.
"""

from __future__ import annotations

import os

import pytest

IS_ALL = bool(os.environ.get("PYWEBLLM_ALL"))
INTERPRETERS = ["mpy", "py"] if IS_ALL else ["mpy"]
PAGE_INTERPRETERS = ["mpy", pytest.param("py", marks=pytest.mark.sampled)]
RANDOM_SEEDS = range(4) if IS_ALL else range(2)
