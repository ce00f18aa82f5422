"""The part of `bench_forms.py` that runs inside the worker, next to the engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict

from py_engine.chat_config import ActivationDtype
from py_engine.config import ChatConfig
from py_engine.gpu.adapter import request_device
from py_engine.gpu.clock import clock_of
from py_engine.gpu.types import Buffer, Device
from py_engine.kernels.forms import Forms
from py_engine.kernels.tuning import Tuning
from py_engine.models.base import LoadProgress
from py_engine.models.form_choice import FormChooser, StepsIn, Timing, measure_forms
from py_engine.models.loader import load_model
from py_engine.storage.choices_browser import BrowserChoices
from py_engine.storage.fetch_browser import FetchSource
from py_engine.weights.checkpoint import open_checkpoint

N_TOKENS = 64
"""Tokens of a product of a chunk."""


class Recorder(FormChooser):
    """Measures on every adapter, known or not, and changes nothing."""

    def __init__(self) -> None:
        super().__init__(BrowserChoices(), clock_of)
        self.timings: list[Timing] = []

    async def known(self, device: Device, activation_dtype: ActivationDtype) -> Forms:
        """Return nothing, so that everything is measured."""
        return {}

    async def choose(
        self,
        device: Device,
        tuning: Tuning,
        steps_in: StepsIn,
        buffers: Mapping[str, Buffer],
        prefill_chunk_size: int,
        on_progress: Callable[[LoadProgress], None],
    ) -> Forms:
        """Measure, and leave the forms as they are."""
        clock, n_tokens = clock_of(device), min(N_TOKENS, prefill_chunk_size)
        self.timings = await measure_forms(
            device, clock, tuning, steps_in, buffers, n_tokens, on_progress
        )
        return tuning.measured


async def measure(url: str) -> str:
    """Time every form of the products of the model at `url`; return adapter and rows as JSON."""
    device = await request_device()
    checkpoint = await open_checkpoint(FetchSource(url))
    every_form = {"activation_dtype": "int8"}
    config = ChatConfig.from_json(checkpoint.config_json, chat_opts=every_form)
    recorder = Recorder()
    model = await load_model(device, checkpoint, config, lambda progress: None, chooser=recorder)
    model.destroy()
    device.destroy()
    rows = [
        {
            "product": timing.product,
            "form": None if timing.form is None else asdict(timing.form),
            "seconds": timing.seconds,
        }
        for timing in recorder.timings
    ]
    return json.dumps({"adapter": str(device.info), "forms": rows})
