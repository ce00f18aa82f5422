"""MLCEngine loads models: progress, records, and loads that another call ends."""

from __future__ import annotations

import asyncio

import pytest

from py_engine.config import AppConfig, InitProgressReport, MLCEngineConfig, ModelRecord
from py_engine.engine import MLCEngine, create_mlc_engine
from py_engine.errors import UnknownArchitectureError
from tests.support.engines import TEXT, ask, engine_of, host_of, text_of
from tests.support.event_loop import in_clean_event_loop
from tests.support.fake_host import model_files


@in_clean_event_loop
async def test_create_loads_and_reports_progress() -> None:
    reports: list[InitProgressReport] = []
    host = host_of()
    config = MLCEngineConfig(host.app_config, reports.append)
    engine = await create_mlc_engine("model", config, host=host)
    assert engine.get_init_progress_callback() == reports.append
    assert await text_of(engine) == TEXT
    progress = [report.progress for report in reports]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0.0, 1.0)
    assert reports[0].text == "Start to fetch params"
    assert "Loading GPU shader modules[1/4]: 25% completed" in reports[1].text
    assert "Fetching param cache: 0.5 of 1.0 MB fetched. 50% completed" in reports[2].text
    assert (reports[2].loadedBytes, reports[2].totalBytes) == (500_000, 1_000_000)
    assert reports[-1].text == "Finish loading on WebGPU - Fake GPU"


@in_clean_event_loop
async def test_progress_of_two_models_grows_through_both() -> None:
    reports: list[InitProgressReport] = []
    host = host_of("a", "b")
    await engine_of(host, "a", "b", init_progress_callback=reports.append)
    progress = [report.progress for report in reports]
    assert progress == sorted(progress)
    half = next(r for r in reports if r.text == "Finish loading on WebGPU - Fake GPU (a)")
    assert (half.progress, progress[-1]) == (0.5, 1.0)


@in_clean_event_loop
async def test_the_last_report_tells_of_int8_activations() -> None:
    reports: list[InitProgressReport] = []
    engine = await engine_of(host_of(), "model", init_progress_callback=reports.append)
    await engine.reload("model", {"activation_dtype": "int8"})
    finished = [report.text for report in reports if report.text.startswith("Finish")]
    plain = "Finish loading on WebGPU - Fake GPU"
    assert finished == [plain, f"{plain}, int8 activations"]


@in_clean_event_loop
async def test_failing_progress_callback_does_not_stop_the_loading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_report: InitProgressReport) -> None:
        raise RuntimeError("mine")

    engine = await engine_of(host_of(), "model", init_progress_callback=fail)
    assert await text_of(engine) == TEXT
    assert "init_progress_callback failed" in caplog.text


@in_clean_event_loop
async def test_required_features_of_all_records_are_asked_for() -> None:
    host = host_of("a", "b")
    records = [
        ModelRecord("memory:/a/", "a", required_features=("shader-f16",)),
        ModelRecord("memory:/b/", "b", required_features=("shader-f16", "subgroups")),
    ]
    engine = MLCEngine(MLCEngineConfig(AppConfig(records)), host=host)
    await engine.reload(["a", "b"])
    assert host.requested_features == [["shader-f16", "subgroups"]]


@in_clean_event_loop
async def test_tokens_that_the_tokenizer_lacks_cannot_be_drawn() -> None:
    host = host_of()
    host.files["model"] = model_files(vocab_size=600)
    found: list[int] = []
    host.before_load = lambda config: found.append(config.active_vocab_size)
    await engine_of(host, "model")
    assert found == [504]


@in_clean_event_loop
async def test_record_overrides_go_below_chat_opts() -> None:
    host = host_of()
    overrides = {"temperature": 0.2, "top_p": 0.3}
    record = ModelRecord("memory:/model/", "model", overrides=overrides)
    engine = MLCEngine(MLCEngineConfig(AppConfig([record])), host=host)
    await engine.reload("model", {"top_p": 0.4})
    await ask(engine)
    sampling = host.loaded[0].samplings[0]
    assert (sampling.temperature, sampling.top_p) == (0.2, 0.4)


@in_clean_event_loop
async def test_unknown_architecture_is_refused_before_anything_is_fetched() -> None:
    host = host_of()
    records = [
        ModelRecord("memory:/model/", "model", architecture="llama"),
        ModelRecord("memory:/other/", "other", architecture="gemma4"),
    ]
    engine = MLCEngine(MLCEngineConfig(AppConfig(records)), host=host)
    with pytest.raises(UnknownArchitectureError, match=r"^other is .*'gemma4'.*not supported"):
        await engine.reload(["model", "other"])
    assert host.sources == host.devices == []
    await engine.reload("model")
    assert await text_of(engine) == TEXT


@in_clean_event_loop
async def test_sources_are_opened_as_the_app_config_says() -> None:
    host = host_of()
    engine = await engine_of(host, "model")
    plain = host.app_config.to_dict() | {"cacheBackend": "indexeddb"}
    engine.set_app_config(plain)
    await engine.reload("model")
    assert [config.cacheBackend for config in host.app_configs] == [None, "indexeddb"]
    files = [("x.gguf", object())]
    assert await engine.register_local_files("mine", files) == "local:mine"
    assert host.registered == {"mine": files}


@in_clean_event_loop
async def test_reload_frees_what_was_loaded() -> None:
    host = host_of("a", "b")
    engine = await engine_of(host, "a")
    await engine.reload("b")
    assert host.loaded[0].is_destroyed
    assert host.devices[0].is_destroyed
    assert (await ask(engine)).model == "b"


@pytest.mark.parametrize("by", ["unload", "reload"])
@in_clean_event_loop
async def test_reload_is_ended_by_another_call(by: str) -> None:
    host = host_of("slow", "other")
    forever = asyncio.Event()
    host.before_load = lambda _config: forever.wait()
    engine = await engine_of(host)
    loading = asyncio.ensure_future(engine.reload("slow"))
    await asyncio.sleep(0.001)
    host.before_load = None
    if by == "unload":
        await engine.unload()
    else:
        await engine.reload("other")
    await loading
    assert host.devices[0].is_destroyed
    assert [model.is_destroyed for model in host.loaded] == [False] * (by == "reload")
    await engine.reload("slow")
    assert await text_of(engine) == TEXT


@in_clean_event_loop
async def test_of_many_reloads_at_once_the_last_wins() -> None:
    host = host_of("a", "b", "c")
    host.before_load = lambda _config: asyncio.sleep(0.001)
    engine = await engine_of(host)
    first = asyncio.ensure_future(engine.reload("a"))
    await asyncio.sleep(0)
    await asyncio.gather(engine.reload("b"), engine.reload("c"), first)
    assert (await ask(engine)).model == "c"
    assert [model.is_destroyed for model in host.loaded[:-1]] == [True] * (len(host.loaded) - 1)
    assert sum(not device.is_destroyed for device in host.devices) == 1


@in_clean_event_loop
async def test_cancelled_reload_raises_and_frees() -> None:
    host = host_of()
    host.before_load = lambda _config: asyncio.Event().wait()
    engine = await engine_of(host)
    loading = asyncio.ensure_future(engine.reload("model"))
    await asyncio.sleep(0.001)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert host.devices[0].is_destroyed
    host.before_load = None
    await engine.reload("model")
    assert await text_of(engine) == TEXT


@in_clean_event_loop
async def test_penalties_come_from_the_models_configuration() -> None:
    host = host_of()
    host.files["model"] = model_files(repetition_penalty=1.1, presence_penalty=0.5)
    await ask(await engine_of(host, "model"))
    sampling = host.loaded[0].samplings[0]
    assert (sampling.repetition_penalty, sampling.presence_penalty) == (1.1, 0.5)
