"""Progress reports while models load, in WebLLM's words."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable

from py_engine.config import InitProgressReport
from py_engine.models.base import LoadProgress

ProgressCallback = Callable[[InitProgressReport], object]

logger = logging.getLogger(__name__)

# Share of the progress that each phase has, as long as most models' downloads are. What need not
# be downloaded of the weights counts as loading.
_KERNELS_SHARE = 0.1
_LOADING_SHARE = 0.2

# Reports of one phase are at least this far apart, but the first and last are never left out.
_INTERVAL_S = 0.05
# What a download reports this soon was stored before.
_STORED_BEFORE_S = 0.3
# Rates are those of the last seconds, and unknown before there is so much to tell from.
_RATE_WINDOW_S = 5.0
_RATE_KNOWN_S = 0.5

_FIRST_VISIT = (
    " It can take a while when we first visit this page to populate the cache. Later refreshes "
    "will become faster."
)


class LoadReporter:
    """Turns the progress of one `reload` into reports whose `progress` only grows from 0 to 1.

    `callback` gives the function to call, or None, at the time of each report; its mistakes are
    logged and do not stop the loading. `clock` returns seconds.
    """

    def __init__(
        self,
        callback: Callable[[], ProgressCallback | None],
        n_models: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._callback = callback
        self._n_models = n_models
        self._n_loaded = 0
        self._clock = clock
        self._began = clock()
        self._progress = 0.0
        self._phases: dict[str, _Phase] = {}
        self._is_kept = False

    def open_model(self, model_id: str) -> None:
        """Report that the first, small files of a model are read."""
        self._report("Start to fetch params" + self._which(model_id))

    def begin_model(self, *, is_kept: bool = False) -> None:
        """Take what follows for the next model's; `is_kept`: its files are stored, then loaded."""
        self._phases = {}
        self._is_kept = is_kept

    def on_load(self, load: LoadProgress) -> None:
        """Report bytes or kernels, unless the last report of this phase was just now."""
        phase = self._phases.get(load.phase)
        if phase is None:
            stored_before_s = _STORED_BEFORE_S if load.phase == "download" else 0.0
            phase = self._phases[load.phase] = _Phase(self._clock(), stored_before_s)
        if phase.advance(load.done, load.total, self._clock()):
            has_bytes = load.phase in ("download", "weights")
            self._report(self._text(load.phase, phase), phase if has_bytes else None)

    def finish_model(self, model_id: str, gpu: str) -> None:
        """Report that a model is ready; `progress` is 1 with the last one."""
        self._n_loaded += 1
        self._phases = {}
        where = f"WebGPU - {gpu}" if gpu else "WebGPU"
        self._report(f"Finish loading on {where}" + self._which(model_id))

    def _text(self, name: str, phase: _Phase) -> str:
        done = f"{int(100 * phase.fraction)}% completed, {int(self._elapsed())} secs elapsed."
        if name == "kernels":
            return f"Loading GPU shader modules[{phase.done}/{phase.total}]: {done}"
        if name == "choice":
            return f"Choosing the fastest kernels for this GPU[{phase.done}/{phase.total}]: {done}"
        if name == "quality":
            return f"Comparing int8 activations with float32[{phase.done}/{phase.total}]: {done}"
        megabytes = f"{phase.done / 1e6:.1f} of {phase.total / 1e6:.1f} MB"
        if name == "download":
            return f"Fetching param cache: {megabytes} fetched. {done}{_FIRST_VISIT}"
        if self._is_kept:
            return f"Loading model from cache: {megabytes} loaded. {done}"
        return f"Fetching param cache: {megabytes} fetched. {done}"

    def _which(self, model_id: str) -> str:
        return f" ({model_id})" if self._n_models > 1 else ""

    def _elapsed(self) -> float:
        return self._clock() - self._began

    def _of_model(self) -> float:
        """Return how much of the model at hand is done, 0 to 1."""
        download = self._phases.get("download")
        downloading = 0.0
        if download is not None:
            downloading = (1 - _KERNELS_SHARE - _LOADING_SHARE) * download.new_fraction
        shares = {
            "download": downloading,
            "weights": 1 - _KERNELS_SHARE - downloading,
            "kernels": _KERNELS_SHARE,
            "quality": 0.0,
            "choice": 0.0,
        }
        return sum(shares[name] * phase.new_done for name, phase in self._phases.items())

    def _report(self, text: str, bytes_of: _Phase | None = None) -> None:
        callback = self._callback()
        if callback is None:
            return
        progress = min(1.0, (self._n_loaded + self._of_model()) / self._n_models)
        self._progress = max(self._progress, progress)
        report = InitProgressReport(self._progress, self._elapsed(), text)
        if bytes_of is not None:
            report = dataclasses.replace(
                report,
                loadedBytes=bytes_of.done,
                totalBytes=bytes_of.total,
                bytesPerSecond=bytes_of.rate,
                remainingSeconds=bytes_of.remaining_s,
            )
        try:
            callback(report)
        except Exception:
            logger.exception("init_progress_callback failed")


class _Phase:
    """What one phase has done of its bytes or kernels; it never goes back."""

    def __init__(self, now: float, stored_before_s: float) -> None:
        self.done = self.total = 0
        self._was_stored_until = now + stored_before_s
        self._stored_before = 0
        self._last_report = float("-inf")
        self._samples: deque[tuple[float, int]] = deque()

    @property
    def fraction(self) -> float:
        """How much is done, 0 to 1."""
        return self.done / self.total if self.total else 1.0

    @property
    def new_fraction(self) -> float:
        """How much of the total was not there when the phase began."""
        return 1 - self._stored_before / self.total if self.total else 0.0

    @property
    def new_done(self) -> float:
        """How much is done of what was not there when the phase began, 0 to 1."""
        new = self.total - self._stored_before
        return (self.done - self._stored_before) / new if new else 1.0

    @property
    def rate(self) -> float:
        """Bytes per second lately; 0 while that is not known."""
        (began, before), (now, done) = self._samples[0], self._samples[-1]
        return (done - before) / (now - began) if now - began >= _RATE_KNOWN_S else 0.0

    @property
    def remaining_s(self) -> float | None:
        """How long the rest takes at this rate; None while that is not known."""
        return (self.total - self.done) / self.rate if self.rate else None

    def advance(self, done: int, total: int, now: float) -> bool:
        """Take the state of things; returns whether it is time for a report."""
        was_done = bool(self._samples) and self.done >= self.total
        self.done, self.total = max(self.done, min(done, total)), total
        if now < self._was_stored_until:
            self._stored_before = self.done
            self._samples.clear()
        self._samples.append((now, self.done))
        while now - self._samples[0][0] > _RATE_WINDOW_S:
            self._samples.popleft()
        is_last = self.done >= self.total and not was_done
        if not is_last and now - self._last_report < _INTERVAL_S:
            return False
        self._last_report = now
        return True
