"""Which forms of products a model gets on a GPU that is not in the table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from py_engine.chat_config import ActivationDtype
from py_engine.config import ChatConfig
from py_engine.errors import DeviceLostError, ShaderCompilationError
from py_engine.gpu.types import AdapterInfo, Dispatch, Kernel, KernelSpec, Limits
from py_engine.kernels import tuning
from py_engine.kernels.form_candidates import (
    forms_as_json,
    forms_from_json,
    gemm_candidates,
    gemv_candidates,
)
from py_engine.kernels.forms import (
    PLAIN_INT8,
    AttentionTile,
    Forms,
    GemmTile,
    GemvForm,
    SplitKeys,
)
from py_engine.kernels.numpy_device import NumpyProgram
from py_engine.models.base import LoadProgress
from py_engine.models.decoder import Decoder
from py_engine.models.form_choice import FormChooser, Timing, fastest_forms
from py_engine.models.loader import load_model
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.fixtures import load_fixture, write_model_folder
from tests.conformance.running import logits_after
from tests.support.numpy_device import NumpyDevice
from tests.unit.test_tuning import H200

FIXTURE = load_fixture("gqa_tied_q4f16")
UNKNOWN = AdapterInfo("acme", "roadrunner", subgroup_size_max=4, has_int8_dot=True)
NVIDIA = AdapterInfo("nvidia", subgroup_size_max=32, has_f16=True, has_int8_dot=True)
STAGED = GemvForm(2, 256, unroll=2, staged=True)
SPLIT = GemvForm(4, 128, split=4)
TILE = GemmTile(64, 64, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write_model_folder(FIXTURE, path)
    return path


class Gpu(NumpyDevice):
    """A GPU of an unknown kind; `bad` says which kernels give nonsense there."""

    def __init__(self, bad: Callable[[KernelSpec], bool] = lambda spec: False) -> None:
        super().__init__()
        self.info = UNKNOWN
        self._bad = bad

    def program(self, dispatches: Sequence[Dispatch], label: str) -> NumpyProgram:
        program = super().program(dispatches, label)
        spec = dispatches[0].kernel.spec if dispatches else None
        if spec is not None and label == "measuring" and self._bad(spec):
            # Of this one program only, which a subclass could not tell from the others.
            program.submit = lambda: None  # type: ignore[method-assign]
        return program


class Clock:
    """Finds some kernels faster than others."""

    def __init__(self, seconds_of: Callable[[KernelSpec], float]) -> None:
        self.n_measured = 0
        self._seconds_of = seconds_of

    async def seconds(self, program: Any) -> float:
        self.n_measured += 1
        return sum(self._seconds_of(each.kernel.spec) for each in program._dispatches)


class Store:
    def __init__(self, **kept: str) -> None:
        self.kept = kept

    async def load(self, key: str) -> str | None:
        return self.kept.get(key)

    async def save(self, key: str, text: str) -> None:
        self.kept[key] = text


def staged_is_fast(spec: KernelSpec) -> float:
    """Time kernels so that the staged form of two rows and small tiles win, not on the head."""
    is_head = spec.label == "lm_head"
    if spec.name == "attention_prefill":
        return 0.6 if "QUERIES" in spec.constants else 0.9
    if spec.constants.get("R") == 2 and spec.constants["SPLIT"] == 1 and not is_head:
        return 0.4 if spec.constants["WORKGROUP"] == 256 else 0.5
    return 0.5 if spec.constants.get("TILE_ROWS") == 64 else 1.0


def load(
    device: NumpyDevice,
    folder: Path,
    chooser: FormChooser | None,
    progress: list[LoadProgress] | None = None,
    **opts: Any,
) -> Decoder:
    async def run() -> Decoder:
        checkpoint = await open_checkpoint(FolderSource(folder))
        config = ChatConfig.from_json(checkpoint.config_json, chat_opts=opts)
        report = [].append if progress is None else progress.append
        return await load_model(device, checkpoint, config, report, chooser=chooser)

    return asyncio.run(run())


def forms_of(model: Decoder) -> Forms:
    return model.steps.tuning.measured


def test_the_fastest_forms_are_used_and_kept(folder: Path) -> None:
    clock, store, progress = Clock(staged_is_fast), Store(), list[LoadProgress]()
    model = load(Gpu(), folder, FormChooser(store, lambda device: clock), progress)
    head = ("gemv", model.vocab_size, model.spec.hidden_size)
    forms = forms_of(model)
    assert forms[head] is None
    chosen = {form for product, form in forms.items() if product != head}
    assert chosen == {STAGED, TILE, AttentionTile(64)}
    assert forms["attention", 4, model.spec.heads.head_dim]
    choices = [each for each in progress if each.phase == "choice"]
    assert [each.done for each in choices] == list(range(clock.n_measured + 1))
    assert {each.total for each in choices} == {clock.n_measured}
    plain = load(NumpyDevice(), folder, None)
    assert logits_after(model, FIXTURE) == pytest.approx(logits_after(plain, FIXTURE), abs=1e-5)

    n_measured = clock.n_measured
    again = load(Gpu(), folder, FormChooser(store, lambda device: clock))
    assert forms_of(again) == forms
    assert clock.n_measured == n_measured


def test_a_form_that_folds_in_what_a_branch_adds_is_no_other_result(tmp_path: Path) -> None:
    """The plain form leaves the norm behind attention to a dispatch of its own."""
    fixture = load_fixture("gemma2_q4f16")
    write_model_folder(fixture, tmp_path)
    model = load(
        Gpu(),
        tmp_path,
        FormChooser(Store(), lambda device: Clock(staged_is_fast)),
    )
    plain = load(NumpyDevice(), tmp_path, None)
    n_spared = len(plain.steps.next_logits.of_any) - len(model.steps.next_logits.of(1))
    assert n_spared == model.spec.n_layers
    assert logits_after(model, fixture) == pytest.approx(logits_after(plain, fixture), abs=1e-5)


def test_products_that_join_parts_of_attention_are_measured_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = SplitKeys(64, 64, 8, alone_keys=16, joined_bytes=1 << 20, by_subgroups=False)
    monkeypatch.setattr(tuning, "_OTHER_GPU", replace(tuning._OTHER_GPU, split_keys=keys))
    model = load(Gpu(), folder, FormChooser(Store(), lambda device: Clock(staged_is_fast)))
    joining = [
        step.kernel
        for step in model.steps.next_logits.of_any
        if step.kernel.name == "gemv" and "PARTS" in step.kernel.constants
    ]
    assert len(joining) == model.spec.n_layers
    assert STAGED in forms_of(model).values()
    plain = load(NumpyDevice(), folder, None)
    assert logits_after(model, FIXTURE) == pytest.approx(logits_after(plain, FIXTURE), abs=1e-5)


def test_a_form_that_gives_other_results_is_not_used(folder: Path) -> None:
    def is_staged(spec: KernelSpec) -> bool:
        return spec.constants.get("R") == 2 and spec.constants.get("WORKGROUP") == 256

    clock = Clock(staged_is_fast)
    model = load(Gpu(bad=is_staged), folder, FormChooser(Store(), lambda device: clock))
    assert STAGED not in forms_of(model).values()
    assert GemvForm(2, 64, unroll=2) in forms_of(model).values()


def test_attention_that_gives_other_results_is_not_used(folder: Path) -> None:
    """Lanes that lie otherwise than expected would mix queries up."""
    clock = Clock(staged_is_fast)
    device = Gpu(bad=lambda spec: spec.name == "attention_prefill" and "QUERIES" in spec.constants)
    model = load(device, folder, FormChooser(Store(), lambda device: clock))
    assert forms_of(model)["attention", 4, model.spec.heads.head_dim] is None
    assert TILE in forms_of(model).values()
    assert not any("QUERIES" in kernel.constants for kernel in model.steps.kernels)


def test_a_form_that_does_not_compile_is_not_used(folder: Path) -> None:
    class NoTiles(Gpu):
        async def compile(self, specs: Sequence[KernelSpec], *more: Any) -> list[Kernel]:
            if any("TILE_ROWS" in spec.constants for spec in specs):
                raise ShaderCompilationError("no such thing")
            return await super().compile(specs, *more)

    clock = Clock(staged_is_fast)
    model = load(NoTiles(), folder, FormChooser(Store(), lambda device: clock))
    assert TILE not in forms_of(model).values()
    assert STAGED in forms_of(model).values()


def test_a_gpu_that_does_not_survive_is_not_asked_a_third_time(folder: Path) -> None:
    class Fragile(Gpu):
        async def compile(self, specs: Sequence[KernelSpec], *more: Any) -> list[Kernel]:
            if any("TILE_ROWS" in spec.constants for spec in specs):
                raise DeviceLostError("gone")
            return await super().compile(specs, *more)

    store = Store()
    for _ in range(2):
        device = Fragile()
        with pytest.raises(DeviceLostError):
            load(device, folder, FormChooser(store, lambda device: Clock(staged_is_fast)))
        assert device.live_buffers == []
    model = load(Fragile(), folder, FormChooser(store, lambda device: Clock(staged_is_fast)))
    assert forms_of(model) == {}


def test_what_is_kept_and_cannot_be_read_is_measured_again(folder: Path) -> None:
    store = Store()
    clock = Clock(staged_is_fast)
    chooser = FormChooser(store, lambda device: clock)
    forms = forms_of(load(Gpu(), folder, chooser))
    [key] = [key for key in store.kept if not key.endswith("attempts")]
    store.kept[key] = '{"gemv": 1}'
    assert forms_of(load(Gpu(), folder, chooser)) == forms
    assert forms_from_json(store.kept[key]) == forms


@pytest.mark.parametrize(
    "info",
    [
        replace(UNKNOWN, is_fallback=True),
        AdapterInfo("google", "swiftshader", subgroup_size_max=4),
    ],
    ids=str,
)
def test_known_adapters_and_those_on_the_cpu_are_not_measured(
    folder: Path, info: AdapterInfo
) -> None:
    device, clock, store = Gpu(), Clock(staged_is_fast), Store()
    device.info = info
    assert forms_of(load(device, folder, FormChooser(store, lambda device: clock))) == {}
    assert (clock.n_measured, store.kept) == (0, {})


def rounding_is_fast(spec: KernelSpec) -> float:
    """Time kernels so that x in 8 bits gains, but not in the head."""
    is_int8 = spec.constants.get("activation_dtype") == "int8" and spec.label != "lm_head"
    return 0.3 if is_int8 and spec.constants.get("R", 4) == 4 else 0.9


def test_int8_forms_are_chosen_where_they_are_allowed_and_faster(folder: Path) -> None:
    clock, store = Clock(rounding_is_fast), Store()
    chooser = FormChooser(store, lambda device: clock)
    model = load(Gpu(), folder, chooser, activation_dtype="int8")
    head = ("gemv", model.vocab_size, model.spec.hidden_size)
    rounded = forms_of(model)
    assert rounded[head] is None
    chosen = {form for product, form in rounded.items() if product != head}
    assert chosen == {PLAIN_INT8, GemmTile(64, 64, 64, "int8"), None}

    floats = forms_of(load(Gpu(), folder, chooser))
    assert floats.keys() == rounded.keys()
    assert {form.activation_dtype for form in floats.values() if form} <= {"float32"}
    assert len([key for key in store.kept if not key.endswith("attempts")]) == 2
    n_measured = clock.n_measured
    assert forms_of(load(Gpu(), folder, chooser, activation_dtype="int8")) == rounded
    assert clock.n_measured == n_measured


def test_an_int8_form_that_gives_nonsense_is_not_used(folder: Path) -> None:
    def is_plain_int8(spec: KernelSpec) -> bool:
        return spec.constants.get("activation_dtype") == "int8" and "R" not in spec.constants

    chooser = FormChooser(Store(), lambda device: Clock(rounding_is_fast))
    model = load(Gpu(bad=is_plain_int8), folder, chooser, activation_dtype="int8")
    assert GemvForm(4, 256, split=2, staged=True, int8=True) in forms_of(model).values()
    assert PLAIN_INT8 not in forms_of(model).values()


def test_a_small_gain_is_none() -> None:
    product = ("gemv", 64, 32)
    timings = [Timing(product, None, 1.0), Timing(product, SPLIT, 0.98)]
    assert fastest_forms(timings) == {product: None}
    timings += [Timing(product, STAGED, 0.9), Timing(product, SPLIT, 0.89)]
    assert fastest_forms(timings) == {product: SPLIT}
    assert fastest_forms([Timing(product, None, 1.0), Timing(product, STAGED, None)]) == {
        product: None
    }


def test_candidates_fit_the_adapter() -> None:
    assert gemv_candidates(None, Limits(), "float32") == ()
    assert SPLIT in gemv_candidates(32, Limits(), "float32")
    assert SPLIT not in gemv_candidates(64, Limits(), "float32")
    assert not any(form.int8 for form in gemv_candidates(32, Limits(), "float32"))
    assert gemv_candidates(None, Limits(), "int8") == (PLAIN_INT8,)
    few = Limits(max_compute_invocations_per_workgroup=128)
    assert all(form.workgroup <= 128 for form in gemv_candidates(4, few, "int8"))
    assert gemm_candidates(UNKNOWN, few, "int8") == ()


@pytest.mark.parametrize(
    ("info", "activation_dtype", "dtypes"),
    [
        (UNKNOWN, "float32", {"float32"}),
        (UNKNOWN, "float16", {"float32"}),
        (UNKNOWN, "int8", {"float32", "int8"}),
        (NVIDIA, "float32", {"float32"}),
        (NVIDIA, "float16", {"float32", "float16"}),
        (NVIDIA, "int8", {"float32", "float16", "int8"}),
    ],
)
def test_tiles_round_as_the_model_and_the_adapter_allow(
    info: AdapterInfo, activation_dtype: ActivationDtype, dtypes: set[ActivationDtype]
) -> None:
    tiles = gemm_candidates(info, Limits(), activation_dtype)
    assert {tile.activation_dtype for tile in tiles} == dtypes


def f16_is_fast(spec: KernelSpec) -> float:
    return 0.5 if spec.constants.get("activation_dtype") == "float16" else 0.9


def test_products_of_a_chunk_are_in_f16_where_that_is_faster(folder: Path) -> None:
    """On a GPU of the table, too, which has not been measured in f16; its other forms stay."""
    clock, device = Clock(f16_is_fast), Gpu()
    device.info, device.limits = NVIDIA, H200
    chooser = FormChooser(Store(), lambda device: clock)
    model = load(device, folder, chooser)
    assert model.activation_dtype == "float16"
    of_products = {p: form for p, form in forms_of(model).items() if p[0] != "attention"}
    assert {kind for kind, *_ in of_products} == {"gemm"}
    assert set(of_products.values()) == {GemmTile(64, 64, 32, "float16")}
    assert forms_of(model)["attention", 4, model.spec.heads.head_dim] is None

    # The option, and a GPU without f16, keep f32.
    n_measured = clock.n_measured
    for other in ("float32", "float16"):
        model = load(device, folder, chooser, activation_dtype=other)
        assert (model.activation_dtype, forms_of(model)) == ("float32", {})
        device.info = replace(NVIDIA, has_f16=False)
    assert clock.n_measured == n_measured


def test_forms_as_text() -> None:
    forms: Forms = {
        ("gemv", 4096, 2048): STAGED,
        ("gemv", 2048, 2048): None,
        ("gemv", 8192, 2048): PLAIN_INT8,
        ("gemm", 2048, 2048): TILE,
        ("gemm", 2048, 4096): GemmTile(128, 64, 32, "float16"),
        ("attention", 32, 64): AttentionTile(64),
    }
    assert forms_from_json(forms_as_json(forms)) == forms
    for text in ("", "7", "[1]", '[["gemv", 1, 2, {"size": 3}]]', '[["conv", 1, 2, {}]]'):
        with pytest.raises(ValueError):
            forms_from_json(text)
