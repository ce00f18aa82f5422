"""A profile of kernels as a trace that opens in Perfetto and in chrome://tracing.

Runs on CPython, Pyodide and MicroPython.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def trace_of(profile: "Mapping[str, Any]") -> "dict[str, Any]":
    """Return what `profile_kernels` found as JSON values in Chrome's trace event format.

    There is a slice for each dispatch of the step, in their order, as long as one of its kernel
    takes: dispatches are timed by kernel, not one by one.
    """
    step = f"decode step after {profile['n_tokens']} tokens"
    events = [
        _named("process_name", f"{profile['model']} on {profile['adapter']}"),
        _named("thread_name", step),
    ]
    start = 0.0
    for dispatch in profile["dispatches"]:
        kernel = profile["kernels"][dispatch["kernel"]]
        microseconds = 1e6 * kernel["seconds"]
        details = {name: kernel[name] for name in ("shape", "nbytes", "operations")}
        if dispatch["layer"] is not None:
            details["layer"] = dispatch["layer"]
        events.append(
            {
                "name": kernel["kernel"],
                "cat": "kernel",
                "ph": "X",
                "pid": 1,
                "tid": 1,
                "ts": start,
                "dur": microseconds,
                "args": details,
            }
        )
        start += microseconds
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _named(what: str, name: str) -> "dict[str, Any]":
    return {"name": what, "ph": "M", "pid": 1, "tid": 1, "args": {"name": name}}
