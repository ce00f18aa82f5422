"""Activations in 8 bits with the embedded model: judged, answered with, and remembered."""

from __future__ import annotations

from typing import Any

from tests.browser.conftest import StartWorker
from tests.support.site_server import RecordingServer


async def _answer() -> dict[str, Any]:
    """Load the embedded model with int8 activations and let it answer."""
    import json

    import js

    from py_engine import config
    from py_engine.engine import MLCEngine

    record = config.prebuilt_app_config.model_list[0]
    reports: list[str] = []
    engine = MLCEngine()
    engine.set_init_progress_callback(lambda report: reports.append(report.text))
    await engine.reload(record.model_id, {"activation_dtype": "int8"})
    response = await engine.chat.completions.create(
        messages=[{"role": "user", "content": "Tell me a story about a dog."}],
        temperature=0,
        max_tokens=24,
    )
    await engine.unload()
    cache = await js.caches.open("pywebllm/choices")
    kept = [
        json.loads(str(await (await cache.match(request)).text()))
        for request in await cache.keys()
        if "int8%20activations" in request.url
    ]
    return {
        "text": response.choices[0].message.content,
        "n_compared": sum(text.startswith("Comparing int8") for text in reports),
        "last": reports[-1],
        "kept": kept,
    }


def test_a_verdict_is_remembered(start_worker: StartWorker, server: RecordingServer) -> None:
    worker = start_worker(server.url)
    first = worker.run(_answer, timeout=300)
    [verdict] = first["kept"]
    assert 0 < verdict["divergence"] < 2e-3
    assert verdict["n_tokens"] == 33 and verdict["agreement"] > 0.9
    assert first["n_compared"] > 0 and first["last"].endswith(", int8 activations")
    assert len(first["text"].split()) > 10

    worker.reboot()
    second = worker.run(_answer, timeout=300)
    assert (second["n_compared"], second["kept"]) == (0, [verdict])
    assert (second["text"], second["last"]) == (first["text"], first["last"])
