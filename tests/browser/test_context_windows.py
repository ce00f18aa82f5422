"""Windows of the embedded model: lowered, raised to its limit and beyond it, and sliding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RecordingServer
from tests.support.engine_worker import EngineWorker

HELPERS = """
import sys
import types

from py_engine import config
from py_engine.engine import MLCEngine

RECORD = config.prebuilt_app_config.model_list[0]
windows = types.ModuleType("windows")
windows.engine, windows.model_id = MLCEngine(), RECORD.model_id
sys.modules["windows"] = windows
"""
EMBEDDED_MODEL = Path(__file__).parents[2] / "web" / "models" / "Llama-Storyteller-7M-q4f16_1-MLC"
LIMIT = 1024
STORY = "Tell me a story about a dog and a ball. "


@pytest.fixture(scope="module")
def worker(engine_worker: EngineWorker) -> Iterator[EngineWorker]:
    engine_worker.run(HELPERS)
    yield engine_worker
    engine_worker.run("from windows import engine\nawait engine.unload()")


async def _answer(
    chat_opts: dict[str, Any], turns: list[str], max_tokens: int | None
) -> list[dict[str, Any]]:
    from windows import engine, model_id

    await engine.reload(model_id, chat_opts)
    messages, answers = [], []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        response = await engine.chat.completions.create(
            messages=messages, temperature=0, max_tokens=max_tokens
        )
        answers.append(response.to_dict())
        messages.append({"role": "assistant", "content": response.choices[0].message.content})
    return answers


async def _refusal(chat_opts: dict[str, Any]) -> list[str]:
    from windows import engine, model_id

    try:
        await engine.reload(model_id, chat_opts)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def sliding(size: int, sinks: int) -> dict[str, int]:
    return {
        "context_window_size": -1,
        "sliding_window_size": size,
        "attention_sink_size": sinks,
        "prefill_chunk_size": 32,
    }


def test_a_lowered_context_ends_a_reply(worker: EngineWorker) -> None:
    """The reply's last token is drawn when the window is full; it never enters the cache."""
    opts = {"context_window_size": 40}
    [answer] = worker.run(_answer, chat_opts=opts, turns=[STORY], max_tokens=None)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 41


def test_a_window_as_long_as_everything_changes_nothing(worker: EngineWorker) -> None:
    texts = []
    for opts in ({"context_window_size": LIMIT}, sliding(LIMIT, 4)):
        [answer] = worker.run(_answer, chat_opts=opts, turns=[STORY * 6], max_tokens=24)
        texts.append(answer["choices"][0]["message"]["content"])
    assert texts[0] == texts[1]
    assert len(texts[0].split()) > 5


def test_a_chat_goes_on_past_its_sliding_window(worker: EngineWorker) -> None:
    turns = [STORY * 12, "Go on.", "And then?"]
    answers = worker.run(_answer, chat_opts=sliding(64, 4), turns=turns, max_tokens=24)
    assert answers[0]["usage"]["prompt_tokens"] > 2 * 64
    for answer in answers:
        assert len(answer["choices"][0]["message"]["content"].split()) > 2
    cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in answers]
    assert cached[0] == 0
    assert cached[2] > answers[0]["usage"]["prompt_tokens"]


@pytest.mark.parametrize("name", ["context_window_size", "sliding_window_size"])
def test_a_window_past_the_models_limit_downloads_nothing(
    worker: EngineWorker, server: RecordingServer, name: str
) -> None:
    off = {"context_window_size": -1, "sliding_window_size": -1, "attention_sink_size": 4}
    error, text = worker.run(_refusal, chat_opts={**off, name: LIMIT + 1})
    assert error == "ConfigurationFieldError"
    assert f"chat_opts: {name} is {LIMIT + 1}" in text
    assert f"Set it to {LIMIT} or less" in text
    files = [path for path in server.paths() if "/models/" in path]
    lists = {"mlc-chat-config.json", "model-manifest.json", "tensor-cache.json"}
    assert {path.rpartition("/")[2] for path in files} <= lists


def test_a_context_that_no_buffer_holds_names_the_longest_that_fits(
    worker: EngineWorker, server: RecordingServer
) -> None:
    read = "from windows import engine\nawait engine.get_max_storage_buffer_binding_size()"
    fits = worker.run(read) // (2 * 64)  # the keys of one KV head, which may lie by themselves
    model = json.loads((EMBEDDED_MODEL / "mlc-chat-config.json").read_text())["model_config"]
    model = {**model, "max_position_embeddings": 2 * fits}
    opts = {"context_window_size": 2 * fits, "model_config": model}
    error, text = worker.run(_refusal, chat_opts=opts)
    assert error == "LimitSupportError"
    assert f"to at most {fits} in chat_opts" in text
    assert not [path for path in server.paths() if path.endswith(".bin")]
