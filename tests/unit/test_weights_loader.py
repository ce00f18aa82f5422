"""From a checkpoint of any layout onto the device: every weight where it belongs, to the bit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.errors import (
    ConversionError,
    MissingFileError,
    MissingTensorError,
    TensorShapeError,
    TruncatedFileError,
    UnknownQuantizationError,
    UnsupportedModelConfigError,
)
from py_engine.gpu.types import Limits
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import Checkpoint, open_checkpoint
from py_engine.weights.loader import load_weights
from py_engine.weights.parameters import (
    MatrixParameter,
    Parameter,
    Stored,
    VectorParameter,
    named,
)
from py_engine.weights.plan import WeightPlan, plan_weights
from py_engine.weights.quantization import bf16_from_f32, f32_from_bf16, quantize
from py_engine.weights.reads import ReadSize
from tests.support.numpy_device import NumpyDevice
from tests.support.safetensors_file import write_safetensors

RANDOM = np.random.default_rng(5)
HEADS, KV_HEADS, HEAD_DIM, HIDDEN, INNER, VOCAB = 6, 2, 16, 96, 160, 203

PARAMETERS: tuple[Parameter, ...] = (
    MatrixParameter("embedding", (VOCAB,), HIDDEN),
    MatrixParameter(
        "layers.0.qkv", (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM), HIDDEN,
        head_dim=HEAD_DIM,
    ),
    VectorParameter(
        "layers.0.qkv.bias", (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM), HEAD_DIM
    ),
    MatrixParameter("layers.0.gate_up", (INNER, INNER), HIDDEN, gated=True),
    VectorParameter("final_norm", (HIDDEN,)),
)  # fmt: skip
NAMES = {
    "embedding": named("embed"),
    "layers.0.qkv": named("q", "k", "v"),
    "layers.0.qkv.bias": named("q.bias", "k.bias", "v.bias"),
    "layers.0.gate_up": named("gate", "up"),
    "final_norm": named("norm.weight"),
}
SHAPES = {
    "embed.weight": (VOCAB, HIDDEN),
    "q.weight": (HEADS * HEAD_DIM, HIDDEN),
    "k.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
    "v.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
    "q.bias": (HEADS * HEAD_DIM,),
    "k.bias": (KV_HEADS * HEAD_DIM,),
    "v.bias": (KV_HEADS * HEAD_DIM,),
    "gate.weight": (INNER, HIDDEN),
    "up.weight": (INNER, HIDDEN),
    "norm.weight": (HIDDEN,),
}
CONFIG = {"model_type": "llama", "vocab_size": VOCAB, "max_position_embeddings": 64}


def make_weights(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, np.ndarray]:
    """Return random weights that bf16 and f16 hold exactly."""
    return {
        name: f32_from_bf16(bf16_from_f32(RANDOM.standard_normal(shape).astype(np.float32)))
        for name, shape in shapes.items()
    }


def write_folder(folder: Path, weights: Mapping[str, np.ndarray], dtype: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    names = list(weights)
    for index, part in enumerate((names[:3], names[3:])):
        path = folder / f"model-{index}.safetensors"
        write_safetensors(path, {name: weights[name] for name in part}, dtype)


def load(
    folder: Path,
    parameters: tuple[Parameter, ...] = PARAMETERS,
    names: Mapping[str, Stored] = NAMES,
    quantization: str | None = None,
    limits: Limits | None = None,
) -> tuple[WeightPlan, dict[str, Any]]:
    async def run() -> tuple[WeightPlan, dict[str, Any]]:
        source = FolderSource(folder)
        checkpoint: Checkpoint = await open_checkpoint(source)
        plan = plan_weights(checkpoint, parameters, names, limits or Limits(), quantization)
        device = NumpyDevice()
        buffers = await load_weights(device, source, plan, lambda done, total: None)
        assert sorted(device.live_buffers) == sorted(plan.buffers)
        return plan, buffers

    return asyncio.run(run())


def stacked(weights: Mapping[str, np.ndarray], *names: str) -> np.ndarray:
    return np.concatenate([weights[name] for name in names])


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_unconverted_weights(tmp_path: Path, dtype: str) -> None:
    weights = make_weights()
    write_folder(tmp_path, weights, dtype)
    plan, buffers = load(tmp_path)
    raw = {"F32": lambda a: a, "F16": lambda a: a.astype(np.float16), "BF16": bf16_from_f32}[dtype]
    for role, names in (
        ("embedding", ("embed.weight",)),
        ("layers.0.qkv", ("q.weight", "k.weight", "v.weight")),
        ("layers.0.gate_up", ("gate.weight", "up.weight")),
    ):
        expected = raw(stacked(weights, *names))
        found = buffers[f"{role}.0.weights"].view(expected.dtype)
        assert np.array_equal(found[: expected.size], expected.ravel())
    bias = buffers["layers.0.qkv.bias"].view(np.float32)[: plan.buffers["layers.0.qkv.bias"] // 4]
    assert np.array_equal(bias, stacked(weights, "q.bias", "k.bias", "v.bias"))
    assert np.array_equal(buffers["final_norm"].view(np.float32), weights["norm.weight"])


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("quantization", ["q4f16_1", "q4f32_1"])
def test_quantised_while_loading(tmp_path: Path, dtype: str, quantization: Any) -> None:
    weights = make_weights()
    write_folder(tmp_path, weights, dtype)
    plan, buffers = load(tmp_path, quantization=quantization)
    words, scales = quantize(stacked(weights, "q.weight", "k.weight", "v.weight"), quantization)
    found = buffers["layers.0.qkv.0.weights"].view(np.uint32)
    assert np.array_equal(found[: words.size], words.ravel())
    kind = np.float16 if quantization == "q4f16_1" else np.float32
    found = buffers["layers.0.qkv.0.scales"].view(kind)
    assert np.array_equal(found[: scales.size], scales.ravel().astype(kind))
    assert {part.format for parts in plan.layouts.values() for part in parts} == {quantization}


def test_parts_of_a_split_matrix_hold_its_rows(tmp_path: Path) -> None:
    weights = make_weights()
    write_folder(tmp_path, weights, "F16")
    limits = Limits(max_storage_buffer_binding_size=2 * HIDDEN * 70)
    plan, buffers = load(tmp_path, limits=limits)
    gates, ups = (weights[f"{name}.weight"].astype(np.float16) for name in ("gate", "up"))
    parts = plan.layouts["layers.0.gate_up"]
    assert [(part.first_output, part.rows) for part in parts] == [
        (0, 64), (32, 64), (64, 64), (96, 64), (128, 64)
    ]  # fmt: skip
    for number, part in enumerate(parts):
        rows = slice(part.first_output, part.first_output + part.rows // 2)
        expected = np.concatenate([gates[rows], ups[rows]])
        found = buffers[f"layers.0.gate_up.{number}.weights"].view(np.float16)
        assert np.array_equal(found[: expected.size], expected.ravel())
    table = weights["embed.weight"].astype(np.float16)
    found = buffers["embedding.3.weights"].view(np.float16)
    assert np.array_equal(found[: 11 * HIDDEN], table[192:].ravel())


def conv1d(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights with q, k and v in one tensor of [in][out], as GPT-2 has it."""
    fused = stacked(weights, "q.weight", "k.weight", "v.weight")
    rest = {name: weights[name] for name in weights if name[0] not in "qkv"}
    bias = stacked(weights, "q.bias", "k.bias", "v.bias")
    return {"c.weight": np.ascontiguousarray(fused.T), "c.bias": bias, **rest}


@pytest.mark.parametrize("quantization", [None, "q4f16_1"])
@pytest.mark.parametrize("most_rows", [1000, 70])
def test_transposed_tensors_also_in_parts(
    tmp_path: Path, quantization: str | None, most_rows: int
) -> None:
    weights = make_weights()
    write_folder(tmp_path, conv1d(weights), "F16")
    names = {
        **NAMES,
        "layers.0.qkv": named("c", transform="transpose"),
        "layers.0.qkv.bias": named("c.bias"),
    }
    row_bytes = 2 * HIDDEN if quantization is None else HIDDEN // 2
    limits = Limits(max_storage_buffer_binding_size=row_bytes * most_rows)
    plan, buffers = load(tmp_path, names=names, quantization=quantization, limits=limits)
    parts = plan.layouts["layers.0.qkv"]
    assert len(parts) == (1 if most_rows == 1000 else 3)
    plain = stacked(weights, "q.weight", "k.weight", "v.weight")
    expected = plain.astype(np.float16) if quantization is None else quantize(plain, "q4f16_1")[0]
    found = np.concatenate(
        [
            buffers[f"layers.0.qkv.{number}.weights"].view(expected.dtype)[
                : part.rows * expected.shape[1]
            ]
            for number, part in enumerate(parts)
        ]
    )
    assert np.array_equal(found, expected.ravel())


def test_heads_in_turn_pairs_and_norms_less_one(tmp_path: Path) -> None:
    """GPT-NeoX's order of heads, GGUF's order of RoPE's pairs, and Gemma's norms."""
    size = 3 * 4 * HEAD_DIM
    shapes = {"qkv.weight": (size, HIDDEN), "qkv.bias": (size,), "p.weight": (64, HIDDEN)}
    weights = make_weights({**shapes, "norm.weight": (HIDDEN,)})
    write_folder(tmp_path, weights, "F32")
    blocks = (size // 3,) * 3
    parameters = (
        MatrixParameter("qkv", blocks, HIDDEN, head_dim=HEAD_DIM),
        VectorParameter("qkv.bias", blocks, HEAD_DIM),
        MatrixParameter("pairs", (64,), HIDDEN, head_dim=HEAD_DIM),
        VectorParameter("final_norm", (HIDDEN,)),
    )
    names = {
        "qkv": named("qkv", transform="interleaved_heads"),
        "qkv.bias": named("qkv.bias", transform="interleaved_heads"),
        "pairs": named("p", transform="rope_pairs"),
        "final_norm": named("norm.weight", transform="add_one"),
    }
    _, buffers = load(tmp_path, parameters, names)

    def ordered(values: np.ndarray) -> np.ndarray:
        heads = values.reshape(4, 3, HEAD_DIM, -1)
        return heads.swapaxes(0, 1).reshape(values.shape)

    found = buffers["qkv.0.weights"].view(np.float32)[: size * HIDDEN]
    assert np.array_equal(found, ordered(weights["qkv.weight"]).ravel())
    found = buffers["qkv.bias"].view(np.float32)[:size]
    assert np.array_equal(found, ordered(weights["qkv.bias"]))
    pairs = weights["p.weight"].reshape(4, HEAD_DIM // 2, 2, HIDDEN).swapaxes(1, 2)
    assert np.array_equal(buffers["pairs.0.weights"].view(np.float32), pairs.ravel())
    norm = weights["norm.weight"] + np.float32(1)
    assert np.array_equal(buffers["final_norm"].view(np.float32), norm)


class Watched(FolderSource):
    """Counts how much is read at once, and what of which file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.under_way = 0
        self.most_under_way = 0
        self.ranges: list[tuple[str, int, int]] = []

    async def read_range(self, path: str, begin: int, end: int, on_bytes: Any = None) -> bytes:
        self.ranges.append((path, begin, end))
        self.under_way += end - begin
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= end - begin
        return await super().read_range(path, begin, end, on_bytes)


def planned(folder: Path, source: Any = None, **changed: Any) -> tuple[Any, WeightPlan]:
    async def run() -> tuple[Any, WeightPlan]:
        checkpoint = await open_checkpoint(source or FolderSource(folder))
        plan = plan_weights(checkpoint, PARAMETERS, NAMES | changed, Limits())
        return checkpoint.source, plan

    return asyncio.run(run())


def test_every_byte_is_read_once_in_the_order_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, make_weights(), "BF16")
    source = Watched(tmp_path)
    _, plan = planned(tmp_path, source)
    source.ranges.clear()
    source.most_under_way = 0
    monkeypatch.setattr("py_engine.weights.loader.OF_REMOTE", ReadSize(4096, 3))
    seen: list[tuple[int, int]] = []

    def on_bytes(done: int, total: int) -> None:
        seen.append((done, total))

    asyncio.run(load_weights(NumpyDevice(), source, plan, on_bytes))
    assert source.ranges == sorted(source.ranges)
    assert all(first[2] <= second[1] for first, second in pairwise(source.ranges)
               if first[0] == second[0])  # fmt: skip
    nbytes = sum(end - begin for _, begin, end in source.ranges)
    assert nbytes == sum(array.nbytes // 2 for array in make_weights().values())
    assert seen[0] == (0, nbytes)
    assert seen[-1] == (nbytes, nbytes)
    assert seen == sorted(seen)
    assert 4096 < source.most_under_way <= 3 * 4096


def test_files_that_are_kept_are_read_before_the_gpu_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, make_weights(), "BF16")

    class Kept(Watched):
        async def download(self, paths: Any, on_bytes: Any = None) -> bool:
            return True

    class Noting(NumpyDevice):
        async def wait_compiled(self, kernels: Any) -> None:
            await asyncio.sleep(0)

        def create_buffer(self, nbytes: int, label: str, *, is_uniform: bool = False) -> Any:
            asked.append(len(source.ranges))
            return super().create_buffer(nbytes, label, is_uniform=is_uniform)

    source, asked = Kept(tmp_path), list[int]()
    _, plan = planned(tmp_path, source)
    source.ranges.clear()
    source.most_under_way = 0
    monkeypatch.setattr("py_engine.weights.loader.OF_KEPT", ReadSize(1024, 6))
    asyncio.run(load_weights(Noting(), source, plan, lambda done, total: None))
    assert asked[0] == 6
    assert 3 * 1024 < source.most_under_way <= 6 * 1024


def test_quantised_in_pieces_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, make_weights(), "BF16")
    _, whole = load(tmp_path, quantization="q4f16_1")
    monkeypatch.setattr("py_engine.weights.transfers.STAGED_BYTES", 5000)
    monkeypatch.setattr("py_engine.weights.loader.OF_REMOTE", ReadSize(1 << 10, 3))
    _, pieces = load(tmp_path, quantization="q4f16_1")
    for name, buffer in whole.items():
        assert np.array_equal(buffer.view(np.uint8), pieces[name].view(np.uint8)), name


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"final_norm": named("lost.weight")},
            MissingTensorError,
            r"^model-0\.safetensors has no tensor 'lost\.weight', which.*Use weights and config",
        ),
        (
            {"final_norm": named("q.bias"), "embedding": named("gate")},
            TensorShapeError,
            r"tensor 'gate\.weight' has shape \[160, 96\], but .* \[203, 96\]\. Use",
        ),
    ],
)
def test_what_the_index_tells_is_told_before_anything_is_read(
    tmp_path: Path, changed: dict[str, Stored], error: type[Exception], message: str
) -> None:
    write_folder(tmp_path, make_weights(), "BF16")
    with pytest.raises(error, match=message):
        planned(tmp_path, **changed)


@pytest.mark.parametrize(
    ("quantization", "error", "message"),
    [
        ("q5", UnknownQuantizationError, r"quantization is 'q5', which is not a known"),
        ("q0f32", UnsupportedModelConfigError, r"is 'q0f32', but the weights are stored as q0bf16"),
        ("q3f16_1", UnsupportedModelConfigError, r"is 'q3f16_1', but only to 4 bits"),
    ],
)
def test_what_weights_cannot_become(
    tmp_path: Path, quantization: str, error: type[Exception], message: str
) -> None:
    write_folder(tmp_path, make_weights(), "BF16")
    with pytest.raises(error, match=message):
        load(tmp_path, quantization=quantization)


def failed(folder: Path, source: Any, plan: WeightPlan, device: NumpyDevice) -> None:
    with pytest.raises((MissingFileError, TruncatedFileError, MemoryError)):
        asyncio.run(load_weights(device, source, plan, lambda done, total: None))
    assert device.buffers
    assert device.live_buffers == []


def test_files_that_shrink_or_vanish_leave_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path, make_weights(), "BF16")
    source, plan = planned(tmp_path)
    path = tmp_path / "model-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    failed(tmp_path, source, plan, NumpyDevice())
    path.unlink()
    failed(tmp_path, source, plan, NumpyDevice())


def test_failing_device_leaves_nothing(tmp_path: Path) -> None:
    class Failing(NumpyDevice):
        def create_buffer(self, nbytes: int, label: str) -> Any:
            if label == "final_norm":
                raise MemoryError(label)
            return super().create_buffer(nbytes, label)

    write_folder(tmp_path, make_weights(), "BF16")
    failed(tmp_path, *planned(tmp_path), Failing())


def test_cancelled_load_leaves_nothing(tmp_path: Path) -> None:
    class Stalling(FolderSource):
        stalls, ended = False, 0

        async def read_range(self, path: str, begin: int, end: int, on_bytes: Any = None) -> bytes:
            try:
                if self.stalls and path.endswith("1.safetensors"):
                    await asyncio.Event().wait()
                return await super().read_range(path, begin, end, on_bytes)
            finally:
                self.ended += self.stalls

    write_folder(tmp_path, make_weights(), "BF16")
    source = Stalling(tmp_path)
    _, plan = planned(tmp_path, source)
    source.stalls = True

    async def cancelled() -> list[str]:
        device = NumpyDevice()
        task = asyncio.ensure_future(load_weights(device, source, plan, lambda done, total: None))
        while not source.ended:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert device.buffers
        return device.live_buffers

    assert asyncio.run(cancelled()) == []
    assert source.ended == 2


def test_weights_too_large_to_quantise_are_told(tmp_path: Path) -> None:
    weights = make_weights()
    weights["up.weight"][3, 5] = 2e6
    write_folder(tmp_path, weights, "F32")
    with pytest.raises(ConversionError, match=r"largest weight is 2e\+06, too large for f16"):
        load(tmp_path, quantization="q4f16_1")
