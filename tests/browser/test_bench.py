"""What one decoded token of the embedded model costs, in counts that no hardware blurs."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from py_engine.tooling.bench import measure_model
from py_engine.tooling.bench_messages import MOUNTS, measure_messages
from py_engine.tooling.bench_peers import (
    MODEL,
    engines_of,
    measure_peers,
    table_of_counts,
)
from py_engine.tooling.bench_peers import table as table_of_peers
from py_engine.tooling.bench_shapes import measure_shapes, table
from py_engine.tooling.bench_startup import measure_startup, waterfall
from py_engine.tooling.bench_weights import measure_weights
from py_engine.tooling.environment import PEERS
from py_engine.tooling.peers.gguf_model import write_gguf
from py_engine.tooling.server import SiteServer
from py_engine.tooling.site import Site
from tests.conftest import RecordingServer


def test_costs_of_a_token(page: Page, server: RecordingServer) -> None:
    page.goto("/build.json")
    figures = measure_model(page, server.url, runs=1, reply_tokens=48)
    assert figures["dispatches_per_token"] == 5 * figures["layers"] + 3
    assert figures["submits_per_token"] == 1
    assert figures["readbacks_per_token"] == 1
    # Six, and on a busy machine now and then a turn of the event loop more.
    assert figures["bridge_calls_per_token"] < 6.5
    assert figures["load_heap_bytes"] < 8 << 20
    assert 0 < figures["bandwidth_fraction"] < 1
    for name in ("load_s", "ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s"):
        assert figures[name] > 0
    assert figures["python_ms_per_token"] > 0
    assert figures["prediction_accepted"] > 0.8
    assert figures["prediction_ratio"] > 0


def test_costs_at_the_shapes_of_a_model(page: Page, server: RecordingServer) -> None:
    page.goto("/build.json")
    shapes = {"n_tokens": 3, "contexts": (16, 600), "prompt_tokens": 20}
    found = measure_shapes(page, server.url, "tiny", **shapes)
    assert [each["context"] for each in found["decode"]] == [16, 600]
    for each in found["decode"]:
        assert each["tokens_per_s"] > 0
        assert each["counts"] == {
            "dispatches": 5 * 2 + 3,
            "passes": 1,
            "submits": 1,
            "readbacks": 1,
            "bytesRead": 4,
        }
    dispatches = [each["dispatches_per_token"] for each in found["batches"]]
    assert dispatches == [13, 13 / 2, 13 / 4]
    assert found["prefill_tokens_per_s"] > 0 and 0 < found["null_none_ms"]
    assert found["int8_over_float32"] > 0
    assert 0 < found["decode"][0]["cache_s"] < found["decode"][1]["cache_s"]
    lines = list(table(found))
    for start in ("dispatches per token", "step after 600 of one after 16", "  aimed at"):
        assert any(line.startswith(start) for line in lines)


def test_what_happens_when_at_the_start(browser: Browser, server: RecordingServer) -> None:
    first, second = measure_startup(browser, server.url)
    for spans in (first, second):
        by_name = {span.name: span for span in spans}
        whole, token = by_name["loading, as a whole"], by_name["first token"]
        assert all(0 <= span.begin_s <= span.end_s for span in spans)
        assert by_name["Python, from the snapshot"].end_s <= whole.begin_s
        assert whole.end_s <= token.begin_s
        weights, kernels = by_name["weights onto the GPU"], by_name["kernels"]
        assert whole.begin_s <= weights.begin_s <= weights.end_s <= whole.end_s
        assert whole.begin_s <= kernels.begin_s <= kernels.end_s
        lines = list(waterfall(spans))
        assert len(lines) == len(spans) and all(line.count("|") == 2 for line in lines)
    assert "files of the model" in {span.name for span in first}


def test_other_engines_with_the_same_model(
    site: Site, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    write_gguf("tiny", tmp_path / f"{MODEL}.gguf")
    # Made by peers/build_onnx.py; smaller, so that it can be kept here.
    (tmp_path / MODEL).symlink_to(Path(__file__).with_name("support") / "onnx_tiny")
    engines = engines_of(prompt_tokens=24, n_tokens=6, with_onnx=True)
    adapter = pytestconfig.getoption("--adapter")
    peers = PEERS / "node_modules"
    found = measure_peers(site.folder, peers, tmp_path, engines, rounds=1, adapter=adapter)
    assert list(found) == [
        "PyWebLLM",
        "transformers.js",
        "wllama, WebGPU allowed",
        "wllama, 2 threads",
    ]
    for figures in found.values():
        assert figures["prompt_tokens"] == 24 and figures["decoded_tokens"] == 6
        assert all(value > 0 for value in figures.values() if isinstance(value, float))
    assert found["wllama, 2 threads"]["where"] == "CPU"
    assert not any(found["wllama, 2 threads"]["counts"].values())
    ours, theirs = (found[name]["counts"] for name in ("PyWebLLM", "transformers.js"))
    assert ours["dispatches"] == 5 * 2 + 3 and ours["readbacks"] == 1 and ours["bytesRead"] == 4
    assert ours["bindGroups"] == 0 and ours["writes"] == 0
    assert theirs["dispatches"] > 5 and theirs["bytesRead"] >= 4 * 512
    lines = list(table_of_peers(found))
    assert len(lines) == 5 and lines[1].count("(1.00 x)") == 7
    assert len(list(table_of_counts(found))) == 13


def test_weights_pass_at_half_the_speed_of_plain_bytes_or_more(
    page: Page, server: RecordingServer
) -> None:
    page.goto("/build.json")
    figures = measure_weights(page, server, megabytes=24)
    assert figures["weights_ratio"] >= 0.5, figures


def test_what_messages_cost(browser: Browser, site: Site) -> None:
    with SiteServer(site.folder, mounts=MOUNTS) as server:
        figures = measure_messages(browser, server, n_chunks=80, seconds=1)
    assert len(figures) == 7
    assert all(figure > 0 for figure in figures.values()), figures
