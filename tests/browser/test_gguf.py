"""A chat with a GGUF file, which has nothing beside it: weights, tokenizer, template, lengths.

The file has the embedded model's weights as Q4_0, number by number, so that its answers are those
of the embedded model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.support.embedded_gguf import FOLDER, embedded_gguf
from tests.support.engine_worker import EngineWorker
from tests.support.site_server import RecordingServer

FILE = "story.gguf"


async def _chat(address: str) -> dict[str, Any]:
    from py_engine import MLCEngine

    engine = MLCEngine()
    reports: list[float] = []
    engine.set_init_progress_callback(lambda report: reports.append(report.progress))
    await engine.reload(address)
    try:
        reply = await engine.chat.completions.create(
            messages=[
                {"role": "system", "content": "You tell stories. <|im_end|>"},
                {"role": "user", "content": "Tell me a story about a fox, in 1234 words."},
            ],
            temperature=0,
            max_tokens=40,
        )
        sampled = await engine.chat.completions.create(
            messages=[{"role": "user", "content": "Hello"}], temperature=1, seed=7, max_tokens=150
        )
    finally:
        await engine.unload()
    return {
        "replies": [each.choices[0].message.content for each in (reply, sampled)],
        "prompt_tokens": reply.usage.prompt_tokens,
        "finish_reason": sampled.choices[0].finish_reason,
        "last_progress": reports[-1],
    }


@pytest.fixture(scope="module")
def worker(browser: Browser, session_server: RecordingServer) -> Iterator[EngineWorker]:
    """A worker with a storage of its own."""
    worker = EngineWorker(browser, session_server.url)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def chat(models_folder: Path, worker: EngineWorker) -> dict[str, Any]:
    """A chat with the GGUF file."""
    (models_folder / FILE).write_bytes(embedded_gguf())
    found: dict[str, Any] = worker.run(_chat, address=f"test-models/{FILE}")
    return found


def test_a_gguf_file_answers_as_the_model_that_it_was_made_of(
    chat: dict[str, Any], worker: EngineWorker
) -> None:
    assert len(chat["replies"][0]) > 40
    assert worker.run(_chat, address=f"models/{FOLDER.name}/") == chat


def test_a_reply_ends_at_the_end_that_the_file_states(chat: dict[str, Any]) -> None:
    assert chat["finish_reason"] == "stop"
    assert "<|im_end|>" not in chat["replies"][1]
    assert chat["last_progress"] == 1
