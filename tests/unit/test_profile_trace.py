"""The trace of a profile: what it shows, and that it is in the format of trace events."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from py_engine.api.objects import plain
from py_engine.models.base import SamplingParams
from py_engine.profile_trace import trace_of
from tests.conformance.fixtures import load_fixture, write_model_folder
from tests.support.profiling import GPU, Host, engine_of
from tests.support.traces import any_profile, nanoseconds, slices_of


def check_format(trace: Any) -> None:
    """Assert that a trace has what the format asks of metadata and of complete events, no more."""
    assert trace.keys() == {"traceEvents", "displayTimeUnit"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    named: set[tuple[str, int, int]] = set()
    ends: dict[tuple[int, int], int] = {}
    for event in trace["traceEvents"]:
        place = event["pid"], event["tid"]
        assert [type(number) for number in place] == [int, int] and min(place) > 0
        if event["ph"] == "M":
            assert event.keys() == {"name", "ph", "pid", "tid", "args"}
            assert event["name"] in ("process_name", "thread_name")
            assert event["args"].keys() == {"name"} and event["args"]["name"]
            assert (event["name"], *place) not in named
            named.add((event["name"], *place))
            continue
        assert event["ph"] == "X"
        assert event.keys() == {"name", "cat", "ph", "pid", "tid", "ts", "dur", "args"}
        assert ("thread_name", *place) in named
        assert event["name"] and event["cat"]
        assert all(isinstance(event[name], int | float) for name in ("ts", "dur"))
        begin, duration = nanoseconds(event)
        # Slices of a thread may lie within each other, but must not overlap.
        assert begin >= ends.get(place, 0) and duration >= 0
        ends[place] = begin + duration
        for value in event["args"].values():
            assert isinstance(value, str | int)
    assert {name for name, *_ in named} == {"process_name", "thread_name"}


def test_the_format_is_that_of_trace_events() -> None:
    trace = json.loads(json.dumps(trace_of(any_profile())))
    check_format(trace)
    assert len(slices_of(trace)) == 1000


def test_no_time_is_lost_between_slices() -> None:
    found = any_profile()
    trace = trace_of(found)
    end = 0
    for event in slices_of(trace):
        begin, duration = nanoseconds(event)
        assert begin == end
        end = begin + duration
    total = sum(
        found[name]["kernels"][dispatch["kernel"]]["seconds"]
        for name in ("prefill", "decode")
        for dispatch in found[name]["dispatches"]
    )
    assert end == pytest.approx(1e9 * total, abs=1000 / 2)


@pytest.mark.parametrize(
    "name",
    [
        "gqa_tied_q4f16",
        "gpt2_q4f16",
        "mistral_window_24_q0f32",
        "phi4_mini_longrope_q0f16",
        "qwen3_5_grouped_q4f32",
    ],
)
def test_a_trace_has_the_dispatches_of_a_chunk_and_of_a_step(name: str, tmp_path: Path) -> None:
    write_model_folder(load_fixture(name), tmp_path)

    async def run() -> tuple[Any, dict[str, list[str]]]:
        host = Host(tmp_path, GPU)
        engine = await engine_of(host)
        profile = await engine.profile_kernels(n_tokens=33)
        model: Any = engine._models.select(None, "test")[1]._text_model
        model.start(SamplingParams(temperature=0))
        log = host.devices[0].dispatched
        log.clear()
        await model.prefill([1, 2, 3])
        prefilled = [label.removeprefix("prefill ") for label in log]
        await model.sample()
        log.clear()
        await model.decode()
        return profile, {"prefill": prefilled, "decode": list(log)}

    profile, dispatched = asyncio.run(run())
    trace = trace_of(profile)
    assert trace == trace_of(plain(profile))
    check_format(json.loads(json.dumps(trace)))
    names = {
        (event["name"], event["tid"]): event["args"]["name"]
        for event in trace["traceEvents"]
        if event["ph"] == "M"
    }
    assert names == {
        ("process_name", 1): "model on Roadrunner 3",
        ("thread_name", 1): "Prefill of 32 tokens after 1",
        ("thread_name", 2): "Decode step after 33 tokens",
    }
    for thread, phase in enumerate(("prefill", "decode"), 1):
        slices = [each for each in slices_of(trace) if each["tid"] == thread]
        assert [each["name"] for each in slices] == dispatched[phase]
        took = slices[-1]["ts"] + slices[-1]["dur"] - slices[0]["ts"]
        assert took == pytest.approx(1e6 * profile[phase]["seconds"])
        layers = [each["args"].get("layer") for each in slices]
        in_layers = [layer for layer in layers if layer is not None]
        assert in_layers == sorted(in_layers)
        assert set(in_layers) == set(range(max(in_layers) + 1))
        assert layers[0] is None
        # Head and draw belong to none.
        assert (layers[-2:] == [None, None]) is (phase == "decode")
        assert sum(Counter(layers)[layer] for layer in (0, 1)) >= 10
