"""What fails in a load or under a request leaves MLCEngine usable, and nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from py_engine.errors import (
    ConfigurationFieldError,
    DeviceLostError,
    MissingFileError,
    MLCError,
    ModelFileFormatError,
    ModelNotFoundError,
    ModelNotLoadedError,
    OutOfMemoryError,
    ReloadArgumentSizeUnmatchedError,
    ReloadModelIdNotUniqueError,
    WebGPUNotAvailableError,
)
from tests.support.engines import TEXT, ask, engine_of, host_of, text_of
from tests.support.event_loop import in_clean_event_loop
from tests.support.fake_host import model_files


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((["model"], [{}, {}]), ReloadArgumentSizeUnmatchedError),
        ((["model", "model"],), ReloadModelIdNotUniqueError),
        (("modle",), ModelNotFoundError),
        (("model", {"temperature": "x"}), ConfigurationFieldError),
    ],
)
@in_clean_event_loop
async def test_wrong_reload_arguments_leave_the_engine_usable(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    engine = await engine_of(host_of(), "model")
    with pytest.raises(error):
        await engine.reload(*arguments)
    with pytest.raises(ModelNotLoadedError):
        await ask(engine)
    await engine.reload("model")
    assert await text_of(engine) == TEXT


@in_clean_event_loop
async def test_broken_files_leave_the_engine_usable_and_free_everything() -> None:
    host = host_of("good", "no config", "bad config", "bad tokenizer")
    host.files["no config"] = {}
    host.files["bad config"] = model_files() | {"mlc-chat-config.json": "{"}
    host.files["bad tokenizer"] = model_files() | {"tokenizer.json": '{"model": 5}'}
    engine = await engine_of(host)
    for model_id, error, n_loaded in (
        ("no config", MissingFileError, 0),  # found before the weights of the other
        ("bad config", ModelFileFormatError, 0),
        ("bad tokenizer", ModelFileFormatError, 1),
    ):
        with pytest.raises(error):
            await engine.reload(["good", model_id])
        assert [model.is_destroyed for model in host.loaded] == [True] * n_loaded
        assert host.devices[-1].is_destroyed
    await engine.reload("good")
    assert await text_of(engine) == TEXT


@pytest.mark.parametrize("error", [WebGPUNotAvailableError("no gpu"), OSError("odd")])
@in_clean_event_loop
async def test_missing_gpu_leaves_the_engine_usable(error: Exception) -> None:
    host = host_of()
    host.device_error = error
    engine = await engine_of(host)
    with pytest.raises(type(error)):
        await engine.reload("model")
    host.device_error = None
    await engine.reload("model")
    assert await text_of(engine) == TEXT


@in_clean_event_loop
async def test_failure_while_loading_weights_frees_the_device() -> None:
    host = host_of()

    def fail(_config: Any) -> None:
        raise OutOfMemoryError("full")

    host.before_load = fail
    engine = await engine_of(host)
    with pytest.raises(OutOfMemoryError):
        await engine.reload("model")
    assert host.devices[0].is_destroyed
    host.before_load = None
    await engine.reload("model")
    assert await text_of(engine) == TEXT


@pytest.mark.parametrize("how", ["unload", "lost"])
@in_clean_event_loop
async def test_requests_fail_when_their_model_goes(how: str) -> None:
    host = host_of()
    engine = await engine_of(host, "model")
    model, gate = host.loaded[0], asyncio.Event()
    model.gate = gate
    running = asyncio.ensure_future(ask(engine))
    waiting = asyncio.ensure_future(ask(engine))
    paused = await ask(engine, stream=True)
    await asyncio.sleep(0.001)
    expected: type[MLCError] = ModelNotLoadedError if how == "unload" else DeviceLostError
    if how == "unload":
        await engine.unload()
    else:
        model.fail_at = {n: DeviceLostError("read failed") for n in range(99)}
        host.devices[0].lose("driver")
        await asyncio.sleep(0.001)
    gate.set()
    for request in (running, waiting, anext(paused)):
        with pytest.raises(expected):
            await request
    assert model.is_destroyed
    assert model.in_flight == 0
    with pytest.raises(ModelNotLoadedError):
        await ask(engine)
    await engine.reload("model")
    assert await text_of(engine) == TEXT


@in_clean_event_loop
async def test_unload_explains_a_read_that_it_broke() -> None:
    host = host_of()
    engine = await engine_of(host, "model")
    model = host.loaded[0]
    model.gate = asyncio.Event()
    running = asyncio.ensure_future(ask(engine))
    await asyncio.sleep(0.001)
    model.fail_at = {n: DeviceLostError("the device was destroyed") for n in range(9)}
    await engine.unload()
    model.gate.set()
    with pytest.raises(ModelNotLoadedError, match="unloaded during the request"):
        await running


@in_clean_event_loop
async def test_failed_read_fails_one_request_only() -> None:
    host = host_of()
    engine = await engine_of(host, "model")
    host.loaded[0].fail_at = {2: DeviceLostError("read failed")}
    with pytest.raises(DeviceLostError, match="read failed"):
        await ask(engine)
    host.loaded[0].fail_at = {}
    assert await text_of(engine) == TEXT


@in_clean_event_loop
async def test_device_lost_while_loading_fails_the_reload() -> None:
    host = host_of()

    async def lose(_config: Any) -> None:
        host.devices[-1].lose("driver")
        await asyncio.sleep(60)  # a download that would go on

    host.before_load = lose
    engine = await engine_of(host)
    with pytest.raises(DeviceLostError, match=r"lost \(driver\)"):
        await engine.reload("model")
    assert (host.loaded, host.devices[0].is_destroyed) == ([], True)
    host.before_load = None
    await engine.reload("model")
    assert await text_of(engine) == TEXT
