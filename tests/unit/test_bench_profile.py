"""How `build.py bench --profile` shows what it measured."""

from __future__ import annotations

from typing import Any

from py_engine.tooling.bench_profile import table


def kernel(label: str, shape: str, **figures: Any) -> dict[str, Any]:
    fields = {"kernel": label, "shape": shape, "count": 1, "nbytes": 0, "operations": 0}
    return {**fields, "bandwidth_fraction": 0.0, "arithmetic_fraction": 0.0, **figures}


def test_kernels_with_times_shares_and_rates() -> None:
    down = {"seconds": 3e-6, "count": 2, "nbytes": 6000, "operations": 12000}
    fractions = {"bandwidth_fraction": 0.25, "arithmetic_fraction": 0.5}
    profile = {
        "model": "tiny",
        "adapter": "acme roadrunner",
        "n_tokens": 128,
        "has_timestamps": True,
        "copy_bytes_per_s": 8e9,
        "read_bytes_per_s": 4e9,
        "operations_per_s": 8e9,
        "step_seconds": 9e-6,
        "kernels": [
            kernel("down", "64 x 96", **down, **fractions),
            kernel("sample", "", seconds=2e-6),
            kernel("embed", "", seconds=0.0),
        ],
    }
    title, rates, _, *rows, end = list(table(profile))
    assert title == "tiny on acme roadrunner, after 128 tokens, by the GPU's timestamps"
    assert "copies 8.0 GB/s (read + written), reads 4.0 GB/s, arithmetic 8.0 Gop/s" in rates
    assert [row.split() for row in rows] == [
        "down 64 x 96 2 3.0 0.006 75.0% 6,000 2.00 25.0% 4.00 50.0%".split(),
        "sample 1 2.0 0.002 25.0% 0 0.00 0.0% 0.00 0.0%".split(),
        "embed 1 0.0 0.000 0.0% 0 0.00 0.0% 0.00 0.0%".split(),
    ]
    assert end == "\nall of these 0.01 ms, in one pass 0.01 ms"
    profile["has_timestamps"] = False
    assert "the clock on the wall" in next(table(profile))
