"""A user's Python file in the engine's worker: `web_worker.mjs?script=URL`."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from py_engine.tooling.steps import ROOT
from tests.support.site_server import RecordingServer

MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"
DOCUMENT = (ROOT / "docs" / "logit-processors.md").read_text(encoding="utf-8")
PROCESSOR = DOCUMENT.partition("```python\n")[2].partition("```")[0]

# Posts the messages at once, long before Python is there; resolves to the answers.
ASK_WORKER = """async ([url, messages, expected]) => {
    const worker = new Worker(url, { type: 'module' });
    const answers = [];
    const all = new Promise((resolve, reject) => {
        setTimeout(reject, 90000, new Error('no answer'));
        worker.onerror = ({ message }) => reject(new Error(message));
        worker.onmessage = ({ data }) => {
            if (data.kind !== 'initProgressCallback') answers.push(data);
            if (answers.length === expected) resolve(answers);
        };
    });
    for (const message of messages) worker.postMessage(message);
    return all.finally(() => worker.terminate());
}"""


def message(kind: str, uuid: str, content: Any = None) -> dict[str, Any]:
    return {"kind": kind, "uuid": uuid, "content": content}


def ask_worker(page: Page, server: RecordingServer, script: str, *messages: Any) -> list[Any]:
    """Return the answers of a worker that runs `script`, as text served at /user/script.py."""
    page.route("**/user/script.py", lambda route: route.fulfill(body=script))
    page.goto(f"{server.url}/pyscript-py.json")  # any page of the site
    url = "/worker/web_worker.mjs?script=user/script.py"
    return list(page.evaluate(ASK_WORKER, [url, messages, len(messages)]))


def test_logit_processor_of_the_documentation(page: Page, server: RecordingServer) -> None:
    request = {
        "messages": [{"role": "user", "content": "Tell me a story about a dog."}],
        "temperature": 0,
        "max_tokens": 40,
        "logprobs": True,
    }
    answers = ask_worker(
        page,
        server,
        PROCESSOR,
        message("reload", "1", {"modelId": [MODEL]}),
        message("chatCompletionNonStreaming", "2", {"request": request, "modelId": [MODEL]}),
    )
    (reply,) = [answer for answer in answers if answer["uuid"] == "2"]
    assert reply["kind"] == "return", reply
    drawn = reply["content"]["choices"][0]["logprobs"]["content"]
    tokens = [entry["token"] for entry in drawn]  # a story has many full stops otherwise
    assert len(tokens) == len(set(tokens)) == 40


def test_script_may_await_import_and_see_messages(page: Page, server: RecordingServer) -> None:
    script = """
import asyncio
import numpy as np
await asyncio.sleep(0)
CHOICE = int(np.argmax([1, 3, 2]))

async def start(handler):
    await asyncio.sleep(0)
    async def get_gpu_vendor():
        return f"{__name__} {CHOICE}"
    handler.engine.get_gpu_vendor = get_gpu_vendor
"""
    (answer,) = ask_worker(page, server, script, message("getGPUVendor", "1"))
    assert answer["content"] == "worker_script 1"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "def start(handler):\n    return 1 // 0\n",
            [
                "its script failed. The traceback:\nTraceback (most recent call last):\n  File",
                '/user/script.py", line 2, in start\n    return 1 // 0\n',
                "ZeroDivisionError",
            ],
        ),
        ("import numpy\nx = = 1\n", ["/user/script.py", "line 2", "SyntaxError"]),
        ("x = 1\n", ["the script defines no function `start(handler)`"]),
    ],
    ids=["raises", "syntax", "no start"],
)
def test_failing_script_fails_every_request_with_its_traceback(
    page: Page, server: RecordingServer, script: str, expected: list[str]
) -> None:
    requests = [message("getGPUVendor", "1"), message("unload", "2")]
    answers = ask_worker(page, server, script, *requests, message("getGPUVendor", "3"))
    assert [answer["uuid"] for answer in answers] == ["", "1", "2"]
    for answer in answers:
        assert (answer["kind"], answer["error"]["name"]) == ("throw", "WorkerFailedError")
        for text in ["The engine's worker could not start: ", *expected]:
            assert text in answer["error"]["message"]
        assert "worker_main" not in answer["error"]["message"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("no/such.py", "no/such.py could not be fetched: HTTP 404."),
        ("http://127.0.0.1:1/x.py", "x.py could not be fetched ("),
    ],
)
def test_script_must_be_there(
    page: Page, server: RecordingServer, script: str, reason: str
) -> None:
    page.goto(f"{server.url}/pyscript-py.json")
    url = f"/worker/web_worker.mjs?script={script}"
    (answer,) = page.evaluate(ASK_WORKER, [url, [], 1])
    assert answer["error"]["name"] == "WorkerFailedError"
    assert reason in answer["error"]["message"]
