"""The two forms of attention that can share keys out give the same where either can be used.

To the last bit: a sequence goes from one to the other as it grows, and beside longer ones in a
batch it has theirs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from py_engine.kernels.attention import attention_decode
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.kernels.attention_split import key_split
from py_engine.kernels.forms import SplitKeys
from py_engine.kernels.tuning import Tuning
from tests.kernels.attention_cases import decode_runner, inputs_for
from tests.kernels.cases import RunKernel, assert_close, expected_and_found, padded
from tests.kernels.test_attention import TOLERANCE
from tests.kernels.test_attention_families import FAMILIES, PARTS, WITH_SINKS

CASES = {
    **FAMILIES,
    **WITH_SINKS,
    **PARTS,
    "a cache of codes": AttentionShape(4, 2, 32, 64, cache_dtype="int8"),
    "a cache that grows": AttentionShape(4, 2, 16, 10_000),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("split_tuning", ["subgroups", "threads", "lanes"], indirect=True)
def test_few_keys_give_the_same_bits_in_both_forms(
    run_kernel: RunKernel, split_tuning: Tuning, name: str
) -> None:
    shape = CASES[name]
    # Where a query never sees more keys there is one form.
    alone_keys = 41 if shape.window is None else shape.window.size - 1
    assert split_tuning.split_keys is not None
    keys = replace(split_tuning.split_keys, alone_keys=alone_keys)
    tuning = replace(split_tuning, split_keys=keys)
    if key_split(shape, tuning) is None:
        pytest.skip("these heads are not shared out by lanes")
    spec = attention_decode("decode under test", shape)
    for position in (0, alone_keys - 1):
        inputs = inputs_for(spec, shape, position, 1)
        buffers = {binding: padded(data) for binding, data in inputs.items()}
        shared, alone = (
            decode_runner(run_kernel, shape, tuning, is_short=is_short)(spec, buffers, 1)
            for is_short in (False, True)
        )
        assert shared == alone, position


@pytest.mark.sampled
@pytest.mark.parametrize("head_dim", [8, 32, 64, 80, 128, 256])
@pytest.mark.parametrize("splits", [1, 2, 5, 64, 100])
@pytest.mark.parametrize("split_tuning", ["threads", "lanes"], indirect=True)
def test_any_number_of_parts_is_joined(
    run_kernel: RunKernel, split_tuning: Tuning, splits: int, head_dim: int
) -> None:
    """Among them more than there are groups of threads for, and than threads."""
    keys = SplitKeys(64, workgroups=splits, least_keys=2, alone_keys=1, by_subgroups=False)
    shape, tuning = AttentionShape(2, 1, head_dim, 256), replace(split_tuning, split_keys=keys)
    if key_split(shape, tuning) is None:
        pytest.skip("these heads are not shared out by lanes")
    spec = attention_decode("decode under test", shape)
    run = decode_runner(run_kernel, shape, tuning)
    for position in (0, 2, 200):
        result = expected_and_found(run, spec, inputs_for(spec, shape, position, 1))
        assert_close(result["output"], TOLERANCE)
        assert not np.isnan(result["output"][1]).any()
