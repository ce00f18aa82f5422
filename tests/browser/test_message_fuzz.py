"""Thousands of random messages to the real worker: each is answered once, and nothing stays behind.

The messages are right, cancelled half-way, or malformed (pages/message_fuzz.mjs).
"""

from __future__ import annotations

import json
import os
from typing import Any

from playwright.sync_api import CDPSession, Page

from tests.conftest import RecordingServer

# A longer one by hand: PYWEBLLM_FUZZ=seed,messages
SEED, MESSAGES = map(int, os.environ.get("PYWEBLLM_FUZZ", "20261128,1200").split(","))
PARTS = 5


def test_every_message_is_answered_once(page: Page, server: RecordingServer) -> None:
    heap = page.context.new_cdp_session(page)
    page.goto(f"{server.url}/tests/browser/pages/message_fuzz.html")
    page.wait_for_function("globalThis.beginFuzz !== undefined")
    assert page.evaluate(f"beginFuzz({SEED})") == "return"
    measures = []
    for _ in range(PARTS):
        held = page.evaluate(f"fuzzPart({MESSAGES // PARTS})")
        measures.append({**held, "page_bytes": js_heap(heap)})
    report = page.evaluate("endFuzz()")
    print(json.dumps([measures, report], indent=1))
    assert (report["lost"], report["twice"], report["unasked"]) == ([], [], [])
    assert report["last"] == "chat.completion"
    assert len(report["kinds"]) >= 20 and len(report["thrown"]) >= 8
    assert {(each["streams"], each["tasks"]) for each in measures} == {(0, 0)}
    for name in ("wasm_bytes", "python_objects", "page_bytes"):
        after_warm_up, at_the_end = measures[1][name], measures[-1][name]
        assert at_the_end < 1.05 * after_warm_up, (name, measures)


def js_heap(session: CDPSession) -> int:
    session.send("HeapProfiler.collectGarbage")
    usage: dict[str, Any] = session.send("Runtime.getHeapUsage")
    return int(usage["usedSize"])
