"""Measuring which forms of kernels are the fastest, on the browser's GPU."""

from __future__ import annotations

from typing import Any

from py_engine.kernels.form_candidates import forms_from_json
from tests.browser.conftest import StartWorker
from tests.support.site_server import RecordingServer

MODEL = "models/Llama-Storyteller-7M-q4f16_1-MLC"


async def _load(url: str) -> dict[str, Any]:
    """Load a model, as on a GPU that nobody has measured, and decode a little."""
    from dataclasses import replace

    from py_engine.config import ChatConfig
    from py_engine.gpu.adapter import request_device
    from py_engine.gpu.clock import clock_of
    from py_engine.kernels.form_candidates import forms_as_json
    from py_engine.kernels.forms import AttentionTile, GemvForm
    from py_engine.models import form_choice
    from py_engine.models.base import SamplingParams
    from py_engine.models.form_choice import FormChooser
    from py_engine.models.loader import load_model
    from py_engine.storage.choices_browser import BrowserChoices
    from py_engine.storage.fetch_browser import FetchSource
    from py_engine.weights.checkpoint import open_checkpoint

    # SwiftShader takes a minute to compile them all.
    tried = {"gemv": [GemvForm(2, 64, unroll=2)], "attention": [AttentionTile(64)]}
    form_choice.candidates = lambda *device: tried
    timings: list[Any] = []
    fastest_forms = form_choice.fastest_forms

    def recorded(found: list[Any]) -> Any:
        timings.extend(found)
        return fastest_forms(found)

    form_choice.fastest_forms = recorded
    device = await request_device()
    device.info = replace(device.info, vendor="acme", is_fallback=False)
    checkpoint = await open_checkpoint(FetchSource(url))
    config = ChatConfig.from_json(checkpoint.config_json)
    progress: list[Any] = []
    chooser = FormChooser(BrowserChoices(), clock_of)
    model = await load_model(device, checkpoint, config, progress.append, chooser=chooser)
    await model.reserve(1)  # after which all kernels are compiled
    model.start(SamplingParams(temperature=0))
    await model.prefill(list(range(1, 41)))
    tokens = [(await model.sample()).token_id]
    for _ in range(7):
        await model.reserve(1)
        tokens.append((await model.decode()).token_id)
    logits = (await model.read_logits()).tolist()
    forms = forms_as_json(model.steps.tuning.measured)
    kernels = [step.kernel.name for step in model.steps]
    model.destroy()
    device.destroy()
    return {
        "tokens": tokens,
        "logits": logits,
        "forms": forms,
        "n_measured": sum(each.phase == "choice" for each in progress),
        "n_wrong": sum(timing.seconds is None for timing in timings),
        "kernels": kernels,
    }


def test_forms_are_measured_once(start_worker: StartWorker, server: RecordingServer) -> None:
    worker = start_worker(server.url)
    url = f"{server.url}/{MODEL}"
    first = worker.run(_load, url=url, timeout=300)
    forms = forms_from_json(first["forms"])
    gemv = [form for (kind, *_), form in forms.items() if kind == "gemv"]
    assert len(gemv) == 5
    assert ("attention", 4, 64) in forms
    assert first["n_measured"] == 2 * (len(gemv) + 1) + 1
    assert first["n_wrong"] == 0
    assert "attention_split" in first["kernels"]

    worker.reboot()
    second = worker.run(_load, url=url)
    assert (second["n_measured"], second["forms"]) == (0, first["forms"])
    assert second["tokens"] == first["tokens"]
    assert second["logits"] == first["logits"]
