"""How `build.py bench --profile` shows what it measured."""

from __future__ import annotations

from typing import Any

from py_engine.tooling.bench_profile import tables


def kernel(label: str, shape: str, **figures: Any) -> dict[str, Any]:
    fields = {"kernel": label, "shape": shape, "count": 1, "nbytes": 0, "operations": 0}
    return {**fields, "bandwidth_fraction": 0.0, "arithmetic_fraction": 0.0, **figures}


def test_kernels_of_both_phases_with_times_shares_and_rates() -> None:
    down = {"seconds": 3e-6, "count": 2, "nbytes": 6000, "operations": 12000}
    fractions = {"bandwidth_fraction": 0.25, "arithmetic_fraction": 0.5}
    sample, embed = kernel("sample", "", seconds=2e-6), kernel("embed", "", seconds=0.0)
    step = [kernel("down", "64 x 96", **down, **fractions), sample, embed]
    chunk = [kernel("rope", "", seconds=1e-3)]
    profile = {
        "model": "tiny",
        "adapter": "acme roadrunner",
        "n_tokens": 128,
        "has_timestamps": True,
        "copy_bytes_per_s": 8e9,
        "read_bytes_per_s": 4e9,
        "operations_per_s": 8e9,
        "prefill": {"position": 96, "n_tokens": 32, "seconds": 2e-3, "kernels": chunk},
        "decode": {"position": 128, "n_tokens": 1, "seconds": 9e-6, "kernels": step},
    }
    title, rates, *lines = list(tables(profile))
    assert title == "tiny on acme roadrunner, by the GPU's timestamps"
    assert "copies 8.0 GB/s (read + written), reads 4.0 GB/s, arithmetic 8.0 Gop/s" in rates
    heading = "kernel shape n us all, ms share bytes GB/s peak Gop/s peak"
    assert [" ".join(line.split()) for line in lines] == [
        "Prefill of 32 tokens after 96",
        heading,
        "rope 1 1000.0 1.000 100.0% 0 0.00 0.0% 0.00 0.0%",
        "all of these 1.00 ms, in one pass 2.00 ms",
        "Decode step after 128 tokens",
        heading,
        "down 64 x 96 2 3.0 0.006 75.0% 6,000 2.00 25.0% 4.00 50.0%",
        "sample 1 2.0 0.002 25.0% 0 0.00 0.0% 0.00 0.0%",
        "embed 1 0.0 0.000 0.0% 0 0.00 0.0% 0.00 0.0%",
        "all of these 0.01 ms, in one pass 0.01 ms",
    ]
    profile["has_timestamps"] = False
    assert next(tables(profile)).endswith("the clock on the wall")
