"""A profile of kernels as a trace that opens in Perfetto.

Runs on CPython, Pyodide and MicroPython.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_TITLES = (
    ("prefill", "Prefill of {n_tokens} tokens after {position}"),
    ("decode", "Decode step after {position} tokens"),
)


def phases_of(profile: "Mapping[str, Any]") -> "list[tuple[str, Any]]":
    """Return the title and the figures of each phase of a profile, in the order in which they run.

    `profile` is what `profile_kernels` returned.
    """
    phases = [(title, profile[name]) for name, title in _TITLES]
    return [
        (title.format(n_tokens=phase["n_tokens"], position=phase["position"]), phase)
        for title, phase in phases
    ]


def trace_of(profile: "Mapping[str, Any]") -> "dict[str, Any]":
    """Return what `profile_kernels` found as JSON values in Chrome's trace event format.

    Each phase is a thread that begins where the one before ends. It has a slice for each dispatch,
    in their order, as long as one of its kernel takes: dispatches are timed by kernel, not one by
    one.
    """
    events = [_named("process_name", 1, f"{profile['model']} on {profile['adapter']}")]
    nanoseconds = 0
    for thread, (title, phase) in enumerate(phases_of(profile), 1):
        events.append(_named("thread_name", thread, title))
        for dispatch in phase["dispatches"]:
            kernel = phase["kernels"][dispatch["kernel"]]
            duration = round(1e9 * kernel["seconds"])
            events.append(_slice(kernel, dispatch["layer"], thread, nanoseconds, duration))
            nanoseconds += duration
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _slice(
    kernel: "Mapping[str, Any]", layer: "int | None", thread: int, start: int, duration: int
) -> "dict[str, Any]":
    """Return a slice, given its time in whole ns.

    Perfetto rounds to them and drops a slice that then begins before the end of another.
    """
    details = {name: kernel[name] for name in ("shape", "nbytes", "operations")}
    if layer is not None:
        details["layer"] = layer
    return {
        "name": kernel["kernel"],
        "cat": "kernel",
        "ph": "X",
        "pid": 1,
        "tid": thread,
        "ts": start / 1000,
        "dur": duration / 1000,
        "args": details,
    }


def _named(what: str, thread: int, name: str) -> "dict[str, Any]":
    return {"name": what, "ph": "M", "pid": 1, "tid": thread, "args": {"name": name}}
