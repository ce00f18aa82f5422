"""Progress reports while models load, in WebLLM's words."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from py_engine.config import InitProgressReport
from py_engine.models.base import LoadProgress

ProgressCallback = Callable[[InitProgressReport], object]

logger = logging.getLogger(__name__)

# Share of the progress that each phase has, as long as most models' downloads are.
_SHARES = {"weights": 0.9, "kernels": 0.1}

# Reports of one phase are at least this far apart, but the last is never left out.
_INTERVAL_S = 0.05


class LoadReporter:
    """Turns the progress of one `reload` into reports whose `progress` only grows from 0 to 1.

    `callback` gives the function to call, or None, at the time of each report; its mistakes are
    logged and do not stop the loading.
    """

    def __init__(self, callback: Callable[[], ProgressCallback | None], n_models: int) -> None:
        self._callback = callback
        self._n_models = n_models
        self._n_loaded = 0
        self._fractions: dict[str, float] = {}
        self._began = time.perf_counter()
        self._progress = 0.0
        self._last_phase = ""
        self._last_time = 0.0

    def begin_model(self, model_id: str) -> None:
        """Report that the next model's files are being fetched."""
        self._fractions = {}
        self._report("Start to fetch params" + self._which(model_id))

    def on_load(self, load: LoadProgress) -> None:
        """Report bytes or kernels, unless the last report of this phase was just now."""
        fraction = load.done / load.total if load.total else 1.0
        self._fractions[load.phase] = fraction
        now = time.perf_counter()
        is_news = load.phase != self._last_phase or load.done >= load.total
        if not is_news and now - self._last_time < _INTERVAL_S:
            return
        self._last_phase, self._last_time = load.phase, now
        done = f"{fraction:.0%} completed, {int(self._elapsed())} secs elapsed."
        if load.phase == "kernels":
            self._report(f"Loading GPU shader modules[{load.done}/{load.total}]: {done}")
            return
        megabytes = f"{load.done / 1e6:.1f} of {load.total / 1e6:.1f} MB fetched."
        self._report(
            f"Fetching param cache: {megabytes} {done}",
            loaded_bytes=load.done,
            total_bytes=load.total,
        )

    def finish_model(self, model_id: str, gpu: str) -> None:
        """Report that a model is ready; `progress` is 1 with the last one."""
        self._n_loaded += 1
        self._fractions = {}
        where = f"WebGPU - {gpu}" if gpu else "WebGPU"
        self._report(f"Finish loading on {where}" + self._which(model_id))

    def _which(self, model_id: str) -> str:
        return f" ({model_id})" if self._n_models > 1 else ""

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began

    def _report(self, text: str, *, loaded_bytes: int = 0, total_bytes: int = 0) -> None:
        callback = self._callback()
        if callback is None:
            return
        part = sum(_SHARES[phase] * fraction for phase, fraction in self._fractions.items())
        progress = min(1.0, (self._n_loaded + part) / self._n_models)
        self._progress = max(self._progress, progress)
        report = InitProgressReport(
            self._progress, self._elapsed(), text, loaded_bytes, total_bytes
        )
        try:
            callback(report)
        except Exception:
            logger.exception("init_progress_callback failed")
