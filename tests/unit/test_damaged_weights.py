"""Files that were damaged at random: every one loads, or ends in one of our errors."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.errors import MLCError
from py_engine.gpu.types import Limits
from py_engine.models.model_plan import plan_model
from py_engine.weights.checkpoint import open_checkpoint
from py_engine.weights.loader import load_weights
from tests.conformance.fixtures import load_fixture, write_hf_folder, write_model_folder
from tests.support.memory_source import MemorySource
from tests.support.numpy_device import NumpyDevice

N_MUTATIONS = 200
SECONDS = 5
FIXTURE = load_fixture("gqa_tied_q4f16")

Mutation = Callable[[random.Random, bytes], bytes]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def grow(rng: random.Random, data: bytes) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 40))


def flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng: random.Random, data: bytes) -> bytes:
    begin = rng.randrange(len(data))
    return data[:begin] + rng.randbytes(min(8, len(data) - begin)) + data[begin + 8 :]


def drop(rng: random.Random, data: bytes) -> bytes:
    begin = rng.randrange(len(data))
    return data[:begin] + data[begin + rng.randrange(1, 200) :]


def renumber(rng: random.Random, data: bytes) -> bytes:
    """Change a digit where the text is: a size, an offset, a length."""
    places = [index for index, byte in enumerate(data[:20_000]) if 48 <= byte < 58]
    if not places:
        return flip(rng, data)
    place = rng.choice(places)
    return data[:place] + rng.choice([b"0", b"9", b"-1", b"1e9", b"99999999"]) + data[place + 1 :]


MUTATIONS: tuple[Mutation, ...] = (cut, grow, flip, overwrite, drop, renumber)


def head(rng: random.Random, mutation: Mutation, data: bytes) -> bytes:
    """Apply a mutation to the beginning, where what can be misread stands."""
    size = min(len(data), 6000)
    return mutation(rng, data[:size]) + data[size:]


async def load(files: dict[str, bytes]) -> str:
    """Load a model; return "loaded", or the name of our error."""
    device = NumpyDevice()
    try:
        checkpoint = await open_checkpoint(MemorySource(files))
        config = ChatConfig.from_json(checkpoint.config_json)
        plan = plan_model(checkpoint, config, Limits())
        await load_weights(device, checkpoint.source, plan, lambda done, total: None)
    except MLCError as error:
        assert device.live_buffers == []
        assert str(error)
        return type(error).__name__
    return "loaded"


@pytest.mark.parametrize("kind", ["mlc", "hf"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, over weights that are no numbers
def test_damaged_files_load_or_say_so(tmp_path: Path, kind: str) -> None:
    (write_model_folder if kind == "mlc" else write_hf_folder)(FIXTURE, tmp_path)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert asyncio.run(load(dict(whole))) == "loaded"
    rng, found = random.Random(11), Counter[str]()
    for _ in range(N_MUTATIONS):
        name = rng.choice(sorted(whole))
        mutation = rng.choice(MUTATIONS)
        where = head if rng.random() < 0.6 else lambda rng, change, data: change(rng, data)
        files = {**whole, name: where(rng, mutation, whole[name])}
        found[asyncio.run(asyncio.wait_for(load(files), SECONDS))] += 1
    assert found["loaded"] < N_MUTATIONS
    assert sum(found.values()) == N_MUTATIONS
    assert {"ModelFileFormatError", "TruncatedFileError"} <= set(found), found


def test_numbers_that_no_file_can_have() -> None:
    """Sizes of a header at the ends of their types, which a hasty reader would allocate."""
    entry = {"dtype": "F32", "shape": [2**52, 2**52], "data_offsets": [0, 2**60]}
    for shape in ([2**52, 2**52], [2**31, 0, 2**52], [1] * 10_000):
        raw = json.dumps({"a": {**entry, "shape": shape}}).encode()
        for length in (len(raw), 2**63, 2**64 - 1, 0):
            data = np.uint64(length).tobytes() + raw
            files = {"config.json": b'{"model_type": "llama"}', "model.safetensors": data}
            assert asyncio.run(load(files)) in ("ModelFileFormatError", "TruncatedFileError")
