"""Random messages to a handler with a real MLCEngine over scripted models: each is answered once.

The same with the real worker, and what JavaScript can send beside JSON, is in
browser/test_message_fuzz.py.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import Counter
from typing import Any

import pytest

from py_engine import errors
from py_engine.engine import MLCEngine
from py_engine.rpc.handler import WebWorkerMLCEngineHandler
from py_engine.rpc.messages import KINDS, NO_REPLY
from tests.support.fake_host import FakeHost

MODEL = "model"
AT_ONCE = 12
OF_THE_BROWSER = ("modelCache", "registerLocalFiles")  # a fake host cannot stand for it here
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 2**60, 10**30, "", "x", "\ud83d", "\0", "y" * 10_000),
    *([], [None], ["a", 1], {}, {"a": None}, {"__proto__": {"x": 1}}, [[[[[[]]]]]]),
)
EXPECTED: tuple[dict[str, Any], ...] = ({}, {"modelId": [MODEL]}, {"modelId": MODEL})
NAMES = ("messages", "stream", "stop", "tools", "n", "seed", "model", "temperature", "prompt")
NAMES += ("response_format", "logit_bias", "chatOpts", "streamId", "modelId", "extra_body")


class Fuzz:
    """Sends messages and takes the answers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.waiting: dict[str, Any] = {}
        self.answers: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.sent = 0
        self.streams: list[str] = []
        host = FakeHost(MODEL, "other")
        self.app_config = host.app_config.to_dict()
        engine = MLCEngine({"app_config": host.app_config}, host=host)
        self.handler = WebWorkerMLCEngineHandler(engine, self.receive)

    def receive(self, message: dict[str, Any]) -> None:
        if message["kind"] == "initProgressCallback":
            return
        self.answers[message["uuid"]] += 1
        self.waiting.pop(message["uuid"], None)
        self.errors[message.get("error", {}).get("name", message["kind"])] += 1

    def send(self, kind: Any, content: Any = None) -> None:
        uuid = f"message {self.sent}"
        self.sent += 1
        if kind not in NO_REPLY:
            self.waiting[uuid] = kind, content
        self.handler.on_message({"kind": kind, "uuid": uuid, "content": content})

    def one(self) -> None:
        kind, content = self.right()
        if self.random.random() < 0.45:
            content = self.damaged(content)
        self.send(kind, content)

    def right(self) -> tuple[str, Any]:
        """Return a request of a random kind as it should be."""
        pick = self.random.choice
        kind = pick([*(kind for kind in KINDS if kind not in OF_THE_BROWSER), "no such kind"])
        stream_id = f"stream {self.sent}"
        chat = {"messages": [{"role": "user", "content": pick(["Hi", "", "🦊"])}], "max_tokens": 3}
        completion = {"prompt": pick(["Hi", "the"]), "max_tokens": 3}
        contents = {
            "reload": {"modelId": pick([MODEL, [MODEL, "other"], ["missing"]])},
            "chatCompletionNonStreaming": {"request": chat, "streamId": stream_id},
            "completionNonStreaming": {"request": completion},
            "embedding": {"request": {"input": "Hi"}},
            "chatCompletionStreamInit": {
                "request": {**chat, "stream": True},
                "streamId": stream_id,
            },
            "completionStreamInit": {
                "request": {**completion, "stream": True},
                "selectedModelId": MODEL,
            },
            "completionStreamNextChunk": {"streamId": pick([*self.streams[-4:], "none"])},
            "completionStreamReturn": {"streamId": pick([*self.streams[-4:], MODEL])},
            "forwardTokensAndSample": {"inputIds": [1, 2], "isPrefill": True},
            "countTokens": {"messages": chat["messages"]},
            "resumeChatCompletion": {"sessionId": "x"},
            "resumeChatCompletionStreamInit": {"sessionId": "x", "streamId": stream_id},
            "deleteResumableSession": {"sessionId": "x"},
            "setLogLevel": "WARN",
            "setAppConfig": self.app_config,
            "customRequest": {"requestName": "x"},
            "keepAlive": {"pending": ["x", "message 0"]},
        }
        content: Any = contents.get(kind, {})
        if "request" in (content or {}):
            content |= pick(EXPECTED)
            self.streams.append(stream_id)
        return kind, content

    def damaged(self, content: Any) -> Any:
        """Put an odd value in the content's place, in it, or into its request."""
        odd = self.random.choice(ODD)
        if not isinstance(content, dict) or self.random.random() < 0.3:
            return odd
        in_request = "request" in content and self.random.random() < 0.6
        target = dict(content["request"] if in_request else content)
        name = self.random.choice([*target, *NAMES])
        if self.random.random() < 0.3:
            target.pop(name, None)
        else:
            target[name] = odd
        return {**content, "request": target} if in_request else target

    async def settle(self, most: int) -> None:
        """Wait until few answers are outstanding; what waits behind a stream needs it closed."""
        async with asyncio.timeout(30):
            for turn in itertools.count(1):
                if len(self.waiting) <= most:
                    return
                await asyncio.sleep(0 if turn % 100 else 0.001)
                if turn % 100 == 0:
                    self.close_streams()

    def close_streams(self) -> None:
        for stream_id in (*self.streams, MODEL):
            self.send("completionStreamReturn", {"streamId": stream_id})
        self.streams.clear()


@pytest.mark.parametrize("seed", range(5))
def test_every_message_is_answered_once(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        fuzz = Fuzz(seed)
        while fuzz.sent < 2000:
            fuzz.one()
            if len(fuzz.waiting) >= AT_ONCE:
                await fuzz.settle(fuzz.random.randrange(AT_ONCE))
        fuzz.close_streams()
        await fuzz.settle(0)
        await asyncio.sleep(0)  # the tasks end after their answers
        assert set(fuzz.answers.values()) == {1}
        owner = fuzz.handler.owner
        assert (owner.tasks, owner.requests) == ({}, {})
        await owner.close()  # streams with odd ids are open
        assert len(owner.streams) == 0
        fuzz.send("reload", {"modelId": [MODEL], "appConfig": None})
        await fuzz.settle(0)
        assert len(fuzz.errors) > 12
        unchecked = {name for name in fuzz.errors if not hasattr(errors, name)}
        assert unchecked == {"return", "heartbeat"}
        await fuzz.handler.engine.unload()

    caplog.set_level(logging.CRITICAL)
    asyncio.run(asyncio.wait_for(main(), 60))
