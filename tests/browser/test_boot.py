"""The worker's boot: snapshot, fall back, and what they load."""

from __future__ import annotations

from tests.conftest import EngineWorker


def test_worker_boots_from_the_snapshot(engine_worker: EngineWorker) -> None:
    mode = engine_worker.run("from pywebllm_worker import bootInfo\nbootInfo.mode")
    assert mode == "snapshot"


def test_worker_sees_an_adapter(engine_worker: EngineWorker) -> None:
    async def has_adapter() -> bool:
        import js

        return bool(await js.navigator.gpu.requestAdapter())

    assert engine_worker.run(has_adapter)
