"""Whether a model may take activations in 8 bits: judged once, remembered, without a trace."""

from __future__ import annotations

import asyncio
import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.gpu.types import AdapterInfo, Kernel, KernelSpec
from py_engine.models import quality_gate
from py_engine.models.base import LoadProgress
from py_engine.models.decoder import Decoder
from py_engine.models.loader import load_model
from py_engine.models.quality_gate import QualityGate, Verdict, divergence, judge
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.fixtures import load_fixture, write_model_folder
from tests.conformance.running import load_folder_on_numpy, logits_after
from tests.support.numpy_device import NumpyDevice
from tests.unit.test_form_choice import Store

FIXTURE = load_fixture("gqa_tied_q4f16")
INT8 = {"activation_dtype": "int8"}
UNKNOWN_GPU = AdapterInfo("acme", "roadrunner", subgroup_size_max=4, has_int8_dot=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write_model_folder(FIXTURE, path)
    return path


class Tokens:
    """A tokenizer that has the fixture's prompt for every text."""

    async def vocab_size(self) -> int:
        return 1 << 20

    async def token_ids(self, text: str) -> Sequence[int]:
        assert len(text.split()) > 64
        return FIXTURE.prompt_ids


class Gpu(NumpyDevice):
    """Keeps what it compiled."""

    def __init__(self, info: AdapterInfo | None = None) -> None:
        super().__init__()
        self.info = info or self.info
        self.begun: list[KernelSpec] = []

    def begin_compile(self, specs: Sequence[KernelSpec], *more: Any) -> list[Kernel]:
        self.begun += specs
        return super().begin_compile(specs, *more)

    def dtypes(self, kind: str) -> set[Any]:
        """Return the dtypes of the products of a kind that were compiled."""
        return {s.constants["activation_dtype"] for s in self.begun if s.name == kind}


def load(
    device: NumpyDevice,
    folder: Path,
    store: Store,
    opts: dict[str, Any] = INT8,
    progress: list[LoadProgress] | None = None,
) -> Decoder:
    async def run() -> Decoder:
        checkpoint = await open_checkpoint(FolderSource(folder))
        config = ChatConfig.from_json(checkpoint.config_json, chat_opts=opts)
        report = [].append if progress is None else progress.append
        gate = QualityGate(store)
        return await load_model(device, checkpoint, config, report, tokenizer=Tokens(), gate=gate)

    return asyncio.run(run())


def ungated(folder: Path, opts: dict[str, Any]) -> array[float]:
    return logits_after(asyncio.run(load_folder_on_numpy(folder, NumpyDevice(), opts)), FIXTURE)


def test_a_model_that_passes_is_judged_once(folder: Path) -> None:
    store, device, progress = Store(), Gpu(), list[LoadProgress]()
    model = load(device, folder, store, progress=progress)
    assert (model.activation_dtype, device.dtypes("gemv")) == ("int8", {"int8", "float32"})
    [text] = store.kept.values()
    verdict = Verdict(**json.loads(text))
    assert 0 < verdict.divergence < 5e-3 and verdict.agreement > 0.8 and verdict.n_tokens == 33
    done = [each.done for each in progress if each.phase == "quality"]
    assert done == list(range(1, 67))
    logits = logits_after(model, FIXTURE)
    assert logits == ungated(folder, INT8) != ungated(folder, {})
    model.destroy()
    assert device.live_buffers == []

    device, progress = Gpu(), list[LoadProgress]()
    again = load(device, folder, store, progress=progress)
    assert (again.activation_dtype, device.dtypes("gemv")) == ("int8", {"int8"})
    assert "quality" not in {each.phase for each in progress}
    assert logits_after(again, FIXTURE) == logits


def test_a_model_that_changes_too_much_stays_in_f32(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quality_gate, "MOST_DIVERGENCE", 1e-6)
    store, device = Store(), Gpu()
    model = load(device, folder, store)
    assert (model.activation_dtype, len(store.kept)) == ("float32", 1)
    assert "mean KL divergence 0.000" in caplog.text and "33 tokens" in caplog.text
    assert logits_after(model, FIXTURE) == ungated(folder, {})
    model.destroy()
    assert device.live_buffers == []

    caplog.clear()
    device, progress = Gpu(), list[LoadProgress]()
    again = load(device, folder, store, progress=progress)
    assert (again.activation_dtype, device.dtypes("gemv")) == ("float32", {"float32"})
    assert "quality" not in {each.phase for each in progress}
    assert "mean KL divergence 0.000" in caplog.text


def test_products_of_a_chunk_in_f32_are_not_compiled_to_judge(folder: Path) -> None:
    device = Gpu(UNKNOWN_GPU)
    model = load(device, folder, Store())
    assert model.activation_dtype == "int8"
    assert (device.dtypes("gemm"), device.dtypes("gemv")) == ({"int8"}, {"int8", "float32"})


def test_verdicts_are_of_one_model_on_one_gpu(folder: Path, tmp_path: Path) -> None:
    store = Store()
    load(Gpu(), folder, store)
    load(Gpu(UNKNOWN_GPU), folder, store)
    write_model_folder(FIXTURE, tmp_path)
    load(Gpu(), tmp_path, store)
    assert len(store.kept) == 3


def test_what_is_kept_and_cannot_be_read_is_judged_again(folder: Path) -> None:
    store = Store()
    load(Gpu(), folder, store)
    [(key, text)] = store.kept.items()
    for broken in ("", "[1]", '{"divergence": 1}'):
        store.kept[key] = broken
        assert load(Gpu(), folder, store).activation_dtype == "int8"
        assert store.kept[key] == text


def test_without_integer_dot_products_it_is_f32(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, device = Store(), Gpu()
    device.info = replace(device.info, has_int8_dot=False)
    assert load(device, folder, store).activation_dtype == "float32"
    assert "integer dot products" in caplog.text
    assert (store.kept, device.dtypes("gemv")) == ({}, {"float32"})


def test_nobody_who_does_not_ask_is_judged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, device = Store(), Gpu()
    assert load(device, folder, store, {}).activation_dtype == "float32"
    assert (store.kept, caplog.text, device.dtypes("gemv")) == ({}, "", {"float32"})


def test_a_model_without_codes_of_4_bits_is_not_judged(tmp_path: Path) -> None:
    write_model_folder(load_fixture("mistral_window_24_q0f32"), tmp_path)
    store = Store()
    assert load(Gpu(), tmp_path, store).activation_dtype == "float32"
    assert store.kept == {}


@pytest.mark.parametrize("n_tokens", [2, 3, 24, 70])
def test_the_same_programs_read_the_same_by_steps_and_as_a_chunk(
    folder: Path, n_tokens: int
) -> None:
    async def run() -> Verdict:
        device = NumpyDevice()
        model = await load_folder_on_numpy(folder, device)
        programs = (model.steps, model._kernels)
        tokens, report = FIXTURE.prompt_ids[:n_tokens], list[LoadProgress]()
        verdict = await judge(
            device, model.spec, model._buffers, programs, programs, tokens, report.append
        )
        assert report[-1].done == report[-1].total
        return verdict

    verdict = asyncio.run(run())
    assert abs(verdict.divergence) < 1e-6 and verdict.agreement == 1
    assert verdict.n_tokens == min(n_tokens, 64) - min(n_tokens, 64) // 2 + 1


def test_divergence_of_logits() -> None:
    rng = np.random.default_rng(1)
    for offset in (0, 900):
        right, found = rng.normal(offset, 3, (2, 500))
        p, q = (np.exp(x - np.logaddexp.reduce(x)) for x in (right, found))
        expected = float((p * np.log(p / q)).sum())
        assert divergence(list(right), list(found)) == pytest.approx(expected)
    assert divergence([1.0, 2.0], [11.0, 12.0]) == pytest.approx(0, abs=1e-12)


def test_no_number_does_not_pass() -> None:
    assert Verdict(0.0, 1.0, 9).passes
    assert not Verdict(math.nan, 1.0, 9).passes
