"""Forms that rely on how lanes lie in subgroups, in larger ones than SwiftShader's four lanes.

They run on Mesa's llvmpipe by way of the package `wgpu` (`tests/support/naga.py`), where these are.
"""

from __future__ import annotations

import pytest

from py_engine.kernels.attention import attention_prefill
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.kernels.forms import AttentionTile
from py_engine.kernels.tuning import Tuning
from tests.kernels.attention_cases import inputs_for
from tests.kernels.cases import RunKernel, assert_close, expected_and_found
from tests.kernels.conftest import GEMV_FORMS, one_form, scaled
from tests.kernels.test_matmul import SWIGLU, check_gemv
from tests.support.naga import kernel_runner

LANES = 8


@pytest.fixture(scope="module")
def run_by_eights() -> RunKernel:
    """Dispatch a kernel where subgroups have eight lanes."""
    run = kernel_runner("subgroup")
    if run is None:
        pytest.skip("no adapter here has subgroups without a browser")
    return run


@pytest.mark.parametrize("floats", [1, 128])
@pytest.mark.parametrize(
    ("shape", "position", "n_tokens"),
    [((4, 2, 16), 0, 1), ((4, 2, 64), 0, 64), ((6, 2, 128), 37, 45), ((3, 1, 80), 5, 33)],
)
def test_prefills_attention_by_tiles(
    run_by_eights: RunKernel,
    shape: tuple[int, int, int],
    position: int,
    n_tokens: int,
    floats: int,
) -> None:
    heads = AttentionShape(*shape, 200)
    tuning = Tuning(LANES, 32768, attention_tile=AttentionTile(floats))
    spec = attention_prefill("attention under test", heads, n_tokens, tuning)
    inputs = inputs_for(spec, heads, position, n_tokens)
    result = expected_and_found(run_by_eights, spec, inputs, n_tokens)
    assert_close(result["output"], 1e-5)


@pytest.mark.parametrize("name", [name for name in GEMV_FORMS if "int8" not in name])
def test_gemv(run_by_eights: RunKernel, name: str) -> None:
    form = scaled(GEMV_FORMS[name], LANES)
    check_gemv(run_by_eights, "q4f16_1", SWIGLU, (66, 512), one_form(LANES, form))
