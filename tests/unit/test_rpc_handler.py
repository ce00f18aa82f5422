"""The handler alone: every kind is answered once, and so is whatever is malformed."""

import asyncio
from typing import Any

import pytest

from py_engine.rpc.client import WebWorkerMLCEngine
from py_engine.rpc.handler import WebWorkerMLCEngineHandler
from py_engine.rpc.messages import KINDS, NO_REPLY
from tests.support.scripted_engine import ScriptedEngine
from tests.support.worker_pair import MODEL, JsonTransport, PickedFile, ask

CONTENTS: dict[str, Any] = {
    "reload": {"modelId": [MODEL]},
    "resetChat": {"keepStats": False},
    "getMessage": {},
    "runtimeStatsText": {},
    "forwardTokensAndSample": {"inputIds": [1, 2], "isPrefill": True},
    "chatCompletionNonStreaming": {"request": ask("hi"), "modelId": [MODEL]},
    "chatCompletionStreamInit": {"request": ask("hi", stream=True), "streamId": "s"},
    "completionNonStreaming": {"request": {"prompt": "hi"}, "modelId": [MODEL]},
    "completionStreamInit": {"request": {"prompt": "hi", "stream": True}, "streamId": "t"},
    "completionStreamNextChunk": {"streamId": "s"},
    "completionStreamReturn": {"streamId": "s"},
    "embedding": {"request": {"input": "hi"}},
    "resumeChatCompletion": {"sessionId": "x"},
    "resumeChatCompletionStreamInit": {"sessionId": "x", "streamId": "u"},
    "deleteResumableSession": {"sessionId": "x"},
    "setLogLevel": "INFO",
    "setAppConfig": {"model_list": []},
    "customRequest": {"requestName": "x"},
}


def serve(*messages: Any, engine: Any = None) -> list[dict[str, Any]]:
    """Return the replies to messages that arrive one after the other."""

    async def run() -> list[dict[str, Any]]:
        replies: list[dict[str, Any]] = []
        handler = WebWorkerMLCEngineHandler(engine or ScriptedEngine(), replies.append)
        for message in messages:
            handler.on_message(message)
            async with asyncio.timeout(5):
                while handler.owner.tasks:
                    await asyncio.sleep(0)
        return [reply for reply in replies if reply["kind"] != "initProgressCallback"]

    return asyncio.run(run())


def request(kind: Any, content: Any = None, uuid: Any = "id") -> dict[str, Any]:
    return {"kind": kind, "uuid": uuid, "content": content}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_answered_once(kind: str) -> None:
    replies = serve(request(kind, CONTENTS.get(kind)))
    assert [reply["uuid"] for reply in replies] == ([] if kind in NO_REPLY else ["id"])
    if kind == "keepAlive":
        assert replies[0]["kind"] == "heartbeat"


def test_heartbeats_without_uuid_are_not_answered() -> None:
    """WebLLM's extension sends such, and takes an answer for a message of an unknown kind."""
    assert serve({"kind": "keepAlive"}) == []


def test_requests_without_a_stream_id_do_not_disturb_each_other() -> None:
    async def run() -> list[tuple[str, str]]:
        replies: list[dict[str, Any]] = []
        engine = ScriptedEngine(seconds_per_word=0.001)
        handler = WebWorkerMLCEngineHandler(engine, replies.append)
        await handler.reload_if_unmatched([MODEL])
        replies.clear()
        for uuid in ("1", "2"):
            content = {"request": ask("a b c"), "modelId": [MODEL]}
            handler.on_message(request("chatCompletionNonStreaming", content, uuid))
        while len(replies) < 2:
            await asyncio.sleep(0.001)
        return [(reply["kind"], reply["uuid"]) for reply in replies]

    assert asyncio.run(asyncio.wait_for(run(), 5)) == [("return", "1"), ("return", "2")]


NUMBERS = ("countTokens", "forwardTokensAndSample", "getMaxStorageBufferBindingSize")


def test_the_client_sends_every_kind_but_the_service_workers() -> None:
    async def run() -> set[str]:
        def answer(message: dict[str, Any]) -> None:
            contents = {"completionStreamNextChunk": {"choices": []}, "listResumableSessions": []}
            content: Any = contents.get(message["kind"], {})
            if message["kind"] in NUMBERS:
                content = 1
            if message["kind"].endswith("StreamInit"):
                content = None
            transport.reply({"kind": "return", "uuid": message["uuid"], "content": content})

        transport = JsonTransport(answer)
        engine = WebWorkerMLCEngine(transport, {"app_config": {}, "log_level": "INFO"})
        await engine.reload(MODEL)
        await engine.chat.completions.create(**ask("hi"))
        async with await engine.chat.completions.create(**ask("hi", stream=True)) as stream:
            await anext(stream)
        await engine.completions.create(prompt="hi")
        await (await engine.completions.create(prompt="hi", stream=True)).aclose()
        await engine.embeddings.create(input="hi")
        engine.interrupt_generate()
        engine.custom_request("x")
        await engine.reset_chat()
        await engine.get_message()
        await engine.runtime_stats_text()
        await engine.forward_tokens_and_sample([1], True)
        await engine.get_max_storage_buffer_binding_size()
        await engine.get_gpu_vendor()
        await engine.get_gpu_memory()
        await engine.profile_kernels()
        await engine.count_tokens([])
        await engine.register_local_files("mine", [("x.gguf", PickedFile())])
        await engine.model_cache("list_models")
        await engine.list_resumable_sessions()
        await engine.resume_chat_completion("x")
        resumed = await engine.resume_chat_completion("x", continue_generation=True, stream=True)
        await resumed.aclose()
        await engine.delete_resumable_session("x")
        await engine.unload()
        return {message["kind"] for message in transport.sent}

    assert asyncio.run(run()) == set(KINDS) - {"keepAlive"}


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (request("makeCoffee", "now"), "UnknownMessageKindError"),
        (request(7, "now"), "UnknownMessageKindError"),
        (request("reload"), "MessageFormatError"),
        (request("reload", {"modelId": None}), "MessageFormatError"),
        (request("chatCompletionNonStreaming", {"request": "hi"}), "MessageFormatError"),
        (request("chatCompletionStreamInit", {"request": ask("hi")}), "MessageFormatError"),
        (
            request("chatCompletionNonStreaming", {"request": ask("hi", stream=True)}),
            "MessageFormatError",
        ),
        (
            request("chatCompletionStreamInit", {"request": ask("hi", stream=True)}),
            "MessageFormatError",
        ),
        (request("completionStreamNextChunk", {"streamId": "gone"}), "UnknownStreamError"),
        (request("completionStreamNextChunk", {}), "MessageFormatError"),
        (request("getMessage", [1]), "MessageFormatError"),
        (
            request("resumeChatCompletion", {"sessionId": "x"}),
            "UnsupportedEndpointError",
        ),
        (request("listResumableSessions"), "UnsupportedEndpointError"),
    ],
)
def test_what_cannot_be_served_is_answered_with_the_reason(message: Any, name: str) -> None:
    (reply,) = serve(message)
    assert (reply["kind"], reply["uuid"], reply["error"]["name"]) == ("throw", "id", name)
    assert reply["content"].startswith(f"{name}: ")


@pytest.mark.parametrize(
    "message",
    [{}, {"uuid": "id"}, {"source": "devtools"}, {"kind": "reload"}, {"kind": ["x"]}, {"kind": {}}],
)
def test_what_nobody_could_be_answered_about_is_ignored(message: Any) -> None:
    assert serve(message) == []


def test_a_setting_that_is_refused_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert serve(request("setAppConfig", {"model_list": 7})) == []
    assert "setAppConfig failed" in caplog.text
    assert "model_list" in caplog.text


def test_an_older_client_streams_by_model_id() -> None:
    init = {"request": ask("one two", stream=True), "selectedModelId": MODEL, "modelId": [MODEL]}
    chunk = {"selectedModelId": MODEL}
    engine = ScriptedEngine()
    replies = serve(
        request("chatCompletionStreamInit", init),
        request("completionStreamNextChunk", chunk),
        request("chatCompletionStreamInit", init),  # its first stream was dropped
        *[request("completionStreamNextChunk", chunk)] * 4,
        engine=engine,
    )
    contents = [reply.get("content") for reply in replies]
    words = [c and [choice["delta"].get("content") for choice in c["choices"]] for c in contents]
    assert words == [None, ["one "], None, ["one "], ["two "], [None], None]
    assert "content" in replies[0]
    assert "content" not in replies[-1]
    assert engine.finished == 2


def test_a_result_that_json_cannot_carry_is_an_error_reply() -> None:
    async def run() -> list[dict[str, Any]]:
        replies: list[dict[str, Any]] = []

        def post(message: dict[str, Any]) -> None:
            if message["kind"] == "return":
                raise TypeError("Object of type set is not JSON serializable")
            replies.append(message)

        handler = WebWorkerMLCEngineHandler(ScriptedEngine(), post)
        handler.on_message(request("getGPUVendor"))
        await asyncio.sleep(0.01)
        return replies

    (reply,) = asyncio.run(run())
    assert reply["content"] == "TypeError: Object of type set is not JSON serializable"


def test_a_subclass_may_take_custom_requests() -> None:
    class Handler(WebWorkerMLCEngineHandler):
        def custom_request(self, name: str, message: Any) -> None:
            seen.append((name, message))

    seen: list[tuple[str, Any]] = []

    async def run() -> None:
        handler = Handler(ScriptedEngine(), lambda message: None)
        content = {"requestName": "speak", "requestMessage": {"volume": 3}}
        handler.on_message(request("customRequest", content))

    asyncio.run(run())
    assert seen == [("speak", {"volume": 3})]
