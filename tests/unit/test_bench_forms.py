"""How `build.py bench --tune` shows what it measured."""

from __future__ import annotations

from py_engine.tooling.bench_forms import table

STAGED = {"rows": 2, "workgroup": 256, "split": 1, "unroll": 2, "staged": True}
TILE = {"rows": 64, "tokens": 64, "columns": 32}


def test_forms_stand_beside_the_plain_one() -> None:
    rows = [
        {"product": ["gemv", 512, 256], "form": None, "seconds": 2e-6},
        {"product": ["gemm", 512, 256], "form": None, "seconds": None},
        {"product": ["gemv", 512, 256], "form": STAGED, "seconds": 1e-6},
        {"product": ["gemv", 512, 256], "form": {**STAGED, "rows": 4}, "seconds": None},
        {"product": ["gemm", 512, 256], "form": TILE, "seconds": 5e-6},
    ]
    lines = list(table({"adapter": "acme roadrunner", "forms": rows}))
    assert lines[0] == "acme roadrunner\n"
    assert [line.split() for line in lines[2:]] == [
        ["gemm", "512", "x", "256", "plain", "wrong"],
        ["gemm", "512", "x", "256", "rows", "64,", "tokens", "64,", "columns", "32", "5.0"],
        ["gemv", "512", "x", "256", "plain", "2.0", "1.00"],
        "gemv 512 x 256 rows 2, workgroup 256, split 1, unroll 2, staged 1.0 0.50".split(),
        "gemv 512 x 256 rows 4, workgroup 256, split 1, unroll 2, staged wrong".split(),
    ]
