"""Progress reports: WebLLM's words, bytes and rates, and a progress that never goes back."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pytest

from py_engine.config import InitProgressReport
from py_engine.models.base import LoadProgress
from py_engine.progress import LoadReporter

MB = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Load:
    """A reporter on a clock of its own; `at(seconds, phase, done, total)` advances both."""

    def __init__(self, *, is_kept: bool = True, n_models: int = 1) -> None:
        self.reports: list[InitProgressReport] = []
        self.clock = Clock()
        self.reporter = LoadReporter(lambda: self.reports.append, n_models, self.clock)
        self.is_kept = is_kept
        self.reporter.open_model("m")
        self.reporter.begin_model(is_kept=is_kept)

    def at(self, seconds: float, phase: str, done: int, total: int) -> InitProgressReport:
        self.clock.now = 100.0 + seconds
        self.reporter.on_load(LoadProgress(phase, done, total))  # type: ignore[arg-type]
        return self.reports[-1]


def assert_grows(reports: Iterable[InitProgressReport]) -> None:
    for before, after in itertools.pairwise(reports):
        assert before.progress <= after.progress
        assert before.timeElapsed <= after.timeElapsed


def test_phases_have_webllms_words() -> None:
    load = Load()
    assert load.reports[-1].text == "Start to fetch params"
    assert load.at(1, "download", 0, 200 * MB).text.startswith(
        "Fetching param cache: 0.0 of 200.0 MB fetched. 0% completed, 1 secs elapsed. It can take "
    )
    assert load.at(2.5, "download", 50 * MB, 200 * MB).text.endswith(
        "50.0 of 200.0 MB fetched. 25% completed, 2 secs elapsed. It can take a while when we "
        "first visit this page to populate the cache. Later refreshes will become faster."
    )
    assert load.at(9, "weights", 199 * MB, 200 * MB).text == (
        "Loading model from cache: 199.0 of 200.0 MB loaded. 99% completed, 9 secs elapsed."
    )
    assert load.at(9, "kernels", 3, 4).text == (
        "Loading GPU shader modules[3/4]: 75% completed, 9 secs elapsed."
    )
    load.reporter.finish_model("m", "Some GPU")
    assert load.reports[-1].text == "Finish loading on WebGPU - Some GPU"
    assert load.reports[-1].progress == 1
    assert_grows(load.reports)


def test_files_that_are_not_kept_are_fetched_while_they_load() -> None:
    load = Load(is_kept=False)
    report = load.at(1, "weights", 50 * MB, 100 * MB)
    assert report.text == (
        "Fetching param cache: 50.0 of 100.0 MB fetched. 50% completed, 1 secs elapsed."
    )
    assert report.progress == pytest.approx(0.45)


def test_bytes_rate_and_rest() -> None:
    load = Load()
    first = load.at(0, "download", 0, 100 * MB)
    assert (first.loadedBytes, first.totalBytes) == (0, 100 * MB)
    assert (first.bytesPerSecond, first.remainingSeconds) == (0.0, None)
    for tenth in range(1, 21):
        report = load.at(tenth / 10, "download", tenth * MB, 100 * MB)
    assert report.bytesPerSecond == pytest.approx(10 * MB)
    assert report.remainingSeconds == pytest.approx(8)
    for tenth in range(21, 121):  # slower now: the rate is that of late
        report = load.at(tenth / 10, "download", 20 * MB + (tenth - 20) * MB // 10, 100 * MB)
    assert report.bytesPerSecond == pytest.approx(MB, rel=1e-3)
    kernels = load.at(13, "kernels", 1, 4)
    assert (kernels.loadedBytes, kernels.totalBytes, kernels.remainingSeconds) == (0, 0, None)


def test_what_was_stored_before_is_neither_progress_nor_speed() -> None:
    load = Load()
    assert load.at(0.1, "download", 600 * MB, 1000 * MB).progress == 0
    report = load.at(0.2, "download", 900 * MB, 1000 * MB)
    assert (report.progress, report.bytesPerSecond) == (0, 0)
    report = load.at(2.2, "download", 950 * MB, 1000 * MB)
    assert report.bytesPerSecond == pytest.approx(25 * MB)
    assert report.remainingSeconds == pytest.approx(2)
    assert report.progress == pytest.approx(0.7 * 0.1 * 0.5)
    assert load.at(4.2, "download", 1000 * MB, 1000 * MB).progress == pytest.approx(0.07)
    assert load.at(5, "weights", 500 * MB, 1000 * MB).progress == pytest.approx(0.07 + 0.83 / 2)
    assert load.at(6, "weights", 1000 * MB, 1000 * MB).progress == pytest.approx(0.9)


def test_a_restarted_file_does_not_take_progress_back() -> None:
    load = Load()
    load.at(0, "download", 0, 10 * MB)
    best = load.at(1, "download", 8 * MB, 10 * MB)
    after = load.at(2, "download", 3 * MB, 10 * MB)
    assert (after.progress, after.loadedBytes) == (best.progress, best.loadedBytes)


def test_reports_of_a_phase_are_not_too_many_and_the_last_comes_once() -> None:
    load = Load()
    for step in range(1001):
        load.at(step / 1000, "weights", step, 1000)
    load.at(1.001, "weights", 1000, 1000)
    texts = [report for report in load.reports if report.totalBytes]
    assert 15 <= len(texts) <= 23
    assert texts[-1].loadedBytes == 1000
    assert texts[-2].loadedBytes < 1000


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_phases_grows_to_one(seed: int) -> None:
    random_ = random.Random(seed)
    load, now = Load(n_models=2), 0.0
    for model in "ab":
        totals = {"download": 50 * MB, "weights": 40 * MB, "kernels": 30}
        done = dict.fromkeys(totals, 0)
        while any(done[phase] < total for phase, total in totals.items()):
            phase = random_.choice(list(totals))
            step = random_.randrange(-totals[phase] // 50, totals[phase] // 4)
            done[phase] = max(0, min(totals[phase], done[phase] + step))
            now += random_.random() / 3
            load.at(now, phase, done[phase], totals[phase])
        load.reporter.finish_model(model, "")
        if model == "a":
            assert load.reports[-1].progress == 0.5
            load.reporter.open_model("b")
            load.reporter.begin_model(is_kept=True)
    assert load.reports[-1].text == "Finish loading on WebGPU (b)"
    assert load.reports[-1].progress == 1
    assert_grows(load.reports)
