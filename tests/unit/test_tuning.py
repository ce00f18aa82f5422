"""Which adapters get forms of their own, and that a decoder computes the same in them."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from py_engine.chat_config import ActivationDtype
from py_engine.gpu.types import AdapterInfo, Limits
from py_engine.kernels.attention_shape import AttentionShape, QkNorm, SlidingWindow
from py_engine.kernels.attention_split import (
    KeySplit,
    attention_alone,
    attention_combine,
    attention_split,
    key_split,
)
from py_engine.kernels.forms import PLAIN_INT8, Forms, GemmTile, GemvForm, GemvForms, SplitKeys
from py_engine.kernels.tuning import PLAIN, Tuning, kinds_to_measure, tuning_for

H200 = Limits(
    max_compute_workgroup_storage_size=49152,
    max_compute_invocations_per_workgroup=1024,
    max_compute_workgroup_size_x=1024,
)


@pytest.mark.parametrize(
    "info",
    [
        AdapterInfo("amd", subgroup_size_max=64),
        AdapterInfo("nvidia", subgroup_size_max=None),
        AdapterInfo("nvidia", subgroup_size_max=128),
    ],
    ids=str,
)
def test_other_gpus_share_keys_out_and_are_measured(info: AdapterInfo) -> None:
    keys = SplitKeys(128, 64, 64, 128, 4_000_000, by_subgroups=False)
    assert tuning_for(info, H200) == Tuning(info.subgroup_size_max, 49152, keys, sample_slices=64)
    for dtype in get_args(ActivationDtype):
        assert kinds_to_measure(info, H200, dtype) == {"gemv", "gemm", "attention"}
    forms: Forms = {("gemv", 64, 32): None}
    assert tuning_for(info, H200, forms).measured == forms


@pytest.mark.parametrize("lanes", [None, 8])
def test_adapters_on_the_cpu_have_the_plain_forms(lanes: int | None) -> None:
    info = AdapterInfo("mesa", "llvmpipe", is_fallback=True, subgroup_size_max=lanes)
    assert tuning_for(info, Limits()) == Tuning(lanes)
    assert kinds_to_measure(info, Limits(), "float16") == frozenset()


def test_nvidia_has_its_own_where_the_limits_allow() -> None:
    info = AdapterInfo("nvidia", subgroup_size_max=32)
    tuned = tuning_for(info, H200)
    assert tuned.split_keys is not None and tuned.gemv is not None
    assert (tuned.lanes, tuned.sample_threads) == (32, 1024)
    assert kinds_to_measure(info, H200, "float32") == frozenset()
    # What the table has of chunks was measured in f32.
    assert kinds_to_measure(info, H200, "float16") == {"gemm", "attention"}
    assert kinds_to_measure(info, Limits(), "float32") == {"gemv", "gemm", "attention"}
    assert tuning_for(info, Limits()).gemv is None
    assert tuned.gemm_tile(2048, 64) == GemmTile(64, 64, 32)
    assert tuned.gemm_tile(16384, 64) == GemmTile(128, 64, 16)
    narrow = replace(H200, max_compute_workgroup_size_x=256)
    assert tuning_for(info, narrow).gemv is None


def test_the_adapter_on_the_cpu_has_many_rows_and_few_threads() -> None:
    info = AdapterInfo("google", "swiftshader", subgroup_size_max=4)
    many = GemvForm(64, 16)
    forms = GemvForms(GemvForm(128, 16), many, many, wide_rows=4096, deep_ratio=1 << 30)
    assert tuning_for(info, Limits()) == Tuning(
        4,
        gemv=forms,
        gemm_quads=32,
        sample_threads=4,
        attention_threads=16,
        attention_by_lanes=True,
        split_keys=SplitKeys(4, 64, least_keys=1024, alone_keys=1024, joined_bytes=1 << 30),
        masks_codes=True,
    )


def test_int8_has_forms_of_its_own() -> None:
    def forms(info: AdapterInfo) -> Tuning:
        tuning = tuning_for(info, H200, activation_dtype="int8")
        assert tuning.activation_dtype == "int8"
        floats = tuning_for(info, H200)
        same = {"gemv": None, "gemm_tiles": (), "activation_dtype": "float32"}
        assert replace(tuning, **same) == replace(floats, **same)
        return tuning

    nvidia = forms(AdapterInfo("nvidia", subgroup_size_max=32))
    assert nvidia.gemv_form(28672, 4096) == GemvForm(8, 256, staged=True, int8=True)
    assert nvidia.gemv_form(6144, 4096) == GemvForm(2, 256, staged=True, int8=True)
    assert nvidia.gemv_form(4096, 14336) == GemvForm(4, 256, split=2, staged=True, int8=True)
    assert nvidia.gemm_tile(2048, 64) == GemmTile(64, 64, 32)
    cpu = forms(AdapterInfo("google", "swiftshader", subgroup_size_max=4, is_fallback=True))
    assert (cpu.gemv_form(64, 64), cpu.gemm_tile(64, 64)) == (GemvForm(64, 16, int8=True), None)
    other_cpu = forms(AdapterInfo("mesa", is_fallback=True))
    assert (other_cpu.gemv_form(64, 64), other_cpu.gemm_tile(64, 64)) == (PLAIN_INT8, None)
    gpu = forms(AdapterInfo("amd", subgroup_size_max=64))
    tile = GemmTile(64, 64, 64, "int8")
    assert (gpu.gemv_form(64, 64), gpu.gemm_tile(64, 64)) == (PLAIN_INT8, tile)


def test_what_was_measured_goes_before_the_table() -> None:
    info = AdapterInfo("nvidia", subgroup_size_max=32)
    form = GemvForm(2, 64)
    tuned = tuning_for(info, H200, {("gemv", 4096, 64): form, ("gemm", 4096, 64): None})
    assert tuned.gemv_form(4096, 64) == form
    assert tuned.gemm_tile(4096, 64) is None
    assert tuned.gemv is not None and tuned.gemv_form(4096, 32) == tuned.gemv.choose(4096, 32)


def test_keys_are_split_by_the_number_of_kv_heads_and_the_memory() -> None:
    window = SlidingWindow.for_chunks(256, 4, 8)
    tuned = tuning_for(AdapterInfo("nvidia", subgroup_size_max=32), H200)
    split = key_split(AttentionShape(32, 8, 128, 8192), tuned)
    assert split is not None and (split.splits, split.workgroup) == (16, 256)
    split = key_split(AttentionShape(12, 2, 128, 8192), tuned)
    assert split is not None and split.splits == 64
    many = key_split(AttentionShape(32, 1, 128, 8192), tuned)
    assert many is not None and many.workgroup < 256
    assert key_split(AttentionShape(256, 1, 256, 8192), tuned) is None
    for short in (AttentionShape(32, 8, 128, 256), AttentionShape(32, 8, 128, 8192, window)):
        alone = key_split(short, tuned)
        assert alone is not None and alone.splits == 1
    assert key_split(AttentionShape(32, 8, 128, 8192), PLAIN) is None


def test_keys_are_split_by_lanes_where_queries_share_them() -> None:
    tuned = tuning_for(AdapterInfo("google", "swiftshader", subgroup_size_max=4), Limits())
    assert key_split(AttentionShape(9, 3, 64, 2048), tuned) == KeySplit(21, 1024, 1024, 4, 4, 3)
    assert key_split(AttentionShape(9, 3, 64, 1024), tuned) == KeySplit(1, 1024, 1024, 4, 4, 3)
    many = key_split(AttentionShape(20, 1, 64, 2048), tuned)
    assert many is not None and (many.workgroup, many.queries) == (12, 7)
    assert key_split(AttentionShape(8, 2, 80, 2048), tuned) is None


def test_split_attention_has_as_many_buffers_as_every_adapter() -> None:
    window = SlidingWindow.for_chunks(100, 4, 8)
    shape = AttentionShape(8, 2, 64, 4096, window, QkNorm("full_rms", 1e-6), gated=True)
    split = key_split(shape, tuning_for(AdapterInfo("nvidia", subgroup_size_max=32), H200))
    assert split is not None
    for build in (attention_split, attention_combine, attention_alone):
        kernel = build("attention", shape, split)
        assert len(kernel.bindings) <= Limits().max_storage_buffers_per_shader_stage
