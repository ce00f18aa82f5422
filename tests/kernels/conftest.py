"""Runs kernels in the browser, through the engine's own GPU layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.forms import PLAIN_INT8, AttentionTile, GemvForm, GemvForms, SplitKeys
from py_engine.kernels.tuning import PLAIN, Tuning
from tests.conftest import EngineWorker
from tests.kernels.cases import RunKernel

SPLIT = Tuning(split_keys=SplitKeys(workgroup=64, workgroups=14, least_keys=9, alone_keys=5))


async def _dispatch(
    spec: dict[str, Any], buffers: dict[str, bytes], n_tokens: int
) -> dict[str, bytes]:
    """Run one kernel over copies of `buffers` in the worker; return those that it may write."""
    import asyncio

    from py_engine.gpu import adapter
    from py_engine.gpu.types import Binding, Dispatch, KernelSpec

    if getattr(adapter, "device_under_test", None) is None:
        adapter.device_under_test = await adapter.request_device()
    device = adapter.device_under_test
    spec["bindings"] = tuple(Binding(**binding) for binding in spec["bindings"])
    made = {
        b.name: device.create_buffer(len(buffers[b.name]), b.name, is_uniform=b.access == "uniform")
        for b in spec["bindings"]
    }
    try:
        async with device.check("testing a kernel"):
            for name, data in buffers.items():
                device.write_buffer(made[name], 0, data)
            [kernel] = await device.compile([KernelSpec(**spec)])
            device.program([Dispatch(kernel, tuple(made.values()), n_tokens)], "test").submit()
        written = [b.name for b in spec["bindings"] if b.access == "read_write"]
        read = [device.read_buffer(made[name], 0, len(buffers[name])) for name in written]
        return dict(zip(written, await asyncio.gather(*read), strict=True))
    finally:
        for buffer in made.values():
            buffer.destroy()


async def subgroup_size_max() -> int | None:
    from py_engine.gpu.adapter import request_device

    return (await request_device()).info.subgroup_size_max


@pytest.fixture(scope="session")
def run_kernel(engine_worker: EngineWorker) -> RunKernel:
    """Dispatch a kernel in the browser over the given bytes."""

    def run(spec: KernelSpec, buffers: Mapping[str, bytes], n_tokens: int) -> dict[str, bytes]:
        found: dict[str, bytes] = engine_worker.run(
            _dispatch, spec=asdict(spec), buffers=dict(buffers), n_tokens=n_tokens
        )
        return found

    return run


@pytest.fixture(scope="session")
def lanes(engine_worker: EngineWorker) -> int | None:
    """The largest subgroup of the adapter under test, None without subgroups."""
    found: int | None = engine_worker.run(subgroup_size_max)
    return found


@pytest.fixture(autouse=True)
def lanes_are_there(request: pytest.FixtureRequest) -> None:
    """Skip a test whose parameter `tuning` is for subgroups of another size."""
    parameters = getattr(request.node, "callspec", None)
    tuning = parameters.params.get("tuning") if parameters else None
    if isinstance(tuning, Tuning) and tuning.lanes is not None:
        if tuning.lanes != request.getfixturevalue("lanes"):
            pytest.skip(f"this adapter has no subgroups of {tuning.lanes}")


def sampled(names: Iterable[str]) -> list[Any]:
    """Return parameters of which one in four runs, all with PYWEBLLM_ALL=1."""
    return [pytest.param(name, marks=pytest.mark.sampled) for name in names]


@pytest.fixture(
    params=sampled(
        ["one workgroup", "few threads", "lanes", "split lanes", "split subgroups", "split threads"]
    )
)
def decode_tuning(request: pytest.FixtureRequest, lanes: int | None) -> Tuning:
    """The forms of decode's attention; splits are small, so that short sequences have several."""
    if request.param == "one workgroup":
        return PLAIN
    if request.param == "few threads":
        return Tuning(attention_threads=16)
    return lanes_of_four(lanes) if request.param == "lanes" else split_of(request.param, lanes)


@pytest.fixture
def split_tuning(request: pytest.FixtureRequest, lanes: int | None) -> Tuning:
    """A form of decode's attention that shares keys out, by name."""
    return split_of(request.param, lanes)


def split_of(name: str, lanes: int | None) -> Tuning:
    if name.endswith("lanes"):
        return replace(lanes_of_four(lanes), split_keys=SPLIT.split_keys)
    if name.endswith("threads"):
        return SPLIT
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    return replace(SPLIT, lanes=lanes)


@pytest.fixture(params=sampled(["one thread a query", "lanes", "tiles", "small tiles"]))
def prefill_tuning(request: pytest.FixtureRequest, lanes: int | None) -> Tuning:
    """The forms of prefill's attention."""
    if request.param == "one thread a query":
        return PLAIN
    if request.param == "lanes":
        return lanes_of_four(lanes)
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    return Tuning(
        lanes, 32768, attention_tile=AttentionTile(128 if request.param == "tiles" else 1)
    )


def lanes_of_four(lanes: int | None) -> Tuning:
    """Return the form of attention by lanes, decode's in one part."""
    if lanes != 4:
        pytest.skip("this adapter has no subgroups of four")
    keys = SplitKeys(4, workgroups=1, least_keys=1, alone_keys=1 << 20)
    return Tuning(lanes, split_keys=keys, attention_threads=16, attention_by_lanes=True)


def one_form(lanes: int | None, form: GemvForm) -> Tuning:
    """Return what gives every matrix a form, in workgroup memory of a size that many have."""
    return Tuning(lanes, 32768, gemv=GemvForms.only(form), masks_codes=form.rows > 4)


GEMV_FORMS = {
    "four rows": GemvForm(4, 16),
    "two rows, unrolled": GemvForm(2, 8, unroll=2),
    "four rows, shared": GemvForm(4, 16, split=4),
    "two rows, shared": GemvForm(2, 16, split=2, unroll=2),
    "four rows, staged": GemvForm(4, 32, unroll=2, staged=True),
    "two rows, staged": GemvForm(2, 16, unroll=2, staged=True),
    "eight rows, staged, shared": GemvForm(8, 16, split=2, staged=True),
    "many rows": GemvForm(16, 8),
    "int8": PLAIN_INT8,
    "int8, two rows": GemvForm(2, 16, unroll=2, staged=True, int8=True),
    "int8, four rows, shared": GemvForm(4, 16, split=2, staged=True, int8=True),
    "int8, eight rows": GemvForm(8, 16, staged=True, int8=True),
    "int8, many rows": GemvForm(16, 8, int8=True),
}
"""Workgroups are for subgroups of 4, as SwiftShader has them; larger ones scale them up."""

SHARING_FORMS = [name for name, form in GEMV_FORMS.items() if form.staged or form.has_quads]
"""Those whose rows share x, so that it may be joined, or what a branch adds to it folded in."""

INT8_WITHOUT_SUBGROUPS = Tuning(gemv=GemvForms.only(PLAIN_INT8))


def scaled(form: GemvForm, lanes: int) -> GemvForm:
    """Return a form of `GEMV_FORMS` with as many subgroups of `lanes`."""
    return replace(form, workgroup=form.workgroup // 4 * lanes)


@pytest.fixture(params=sampled(["subgroups", "plain", "int8 without subgroups", *GEMV_FORMS]))
def gemv_tuning(request: pytest.FixtureRequest, lanes: int | None) -> Tuning:
    """Every form of a product of one token."""
    if request.param == "plain":
        return PLAIN
    if request.param == "int8 without subgroups":
        return INT8_WITHOUT_SUBGROUPS
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    if request.param == "subgroups":
        return Tuning(lanes)
    return one_form(lanes, scaled(GEMV_FORMS[request.param], lanes))


@pytest.fixture(params=sampled(["subgroups", "plain", "many rows"]))
def tuning(request: pytest.FixtureRequest, lanes: int | None) -> Tuning:
    """The forms to build a kernel in: with the adapter's subgroups, then without."""
    if request.param == "plain":
        return PLAIN
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    many = request.param == "many rows"
    return Tuning(lanes, gemm_quads=2 if many else 1, masks_codes=many)
