"""A decoder's other ways to a token: split steps, masks, adjusted draws, kept tokens.

One scenario, on the kernels' NumPy references in CPython and on WebGPU in the browser; each way
must give what plain steps from a fresh prefill give.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.models.loader import load_model
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.fixtures import load_fixture, write_model_folder
from tests.conftest import EngineWorker
from tests.support.numpy_device import NumpyDevice

FIXTURE = load_fixture("gqa_tied_q4f16")
N_TOKENS = 8

# The same chunks of the same prompt give the same logits; other chunks give them within rounding
# of the KV cache (f16) and of the order of sums.
TOLERANCE = 5e-3


class Scenario:
    """Drives one loaded model; its source runs in the worker too, so it imports what it needs."""

    def __init__(self, model: Any, prompt: list[int], n_tokens: int, to_host: Any) -> None:
        self.model, self.prompt, self.n_tokens = model, prompt, n_tokens
        self.to_host = to_host

    async def prefill(self, sampling: Any, kept: int = 0) -> None:
        self.model.start(sampling, kept)
        size = self.model.prefill_chunk_size
        for start in range(kept, len(self.prompt), size):
            await self.model.prefill(self.prompt[start : start + size])

    async def plain(self, sampling: Any, kept: int = 0) -> list[Any]:
        """Draw with `sample` and `decode`, all in flight at once."""
        await self.prefill(sampling, kept)
        reading = [self.model.sample(), *[self.model.decode() for _ in range(self.n_tokens - 1)]]
        return [self.as_list(await draw) for draw in reading]

    async def split(self, sampling: Any, masks: Any = None) -> list[Any]:
        """Draw with the halves; the next forward pass is enqueued before a draw is read."""
        await self.prefill(sampling)
        self.model.first_logits()
        draws = []
        for number in range(self.n_tokens):
            reading = self.model.draw(None if masks is None else self.to_host(masks[number]))
            if number + 1 < self.n_tokens:
                self.model.next_logits()
            draws.append(self.as_list(await reading))
        return draws

    async def first_logits(self, kept: int = 0) -> bytes:
        from py_engine.models.base import SamplingParams

        await self.prefill(SamplingParams(), kept)
        self.model.first_logits()
        return (await self.model.read_logits()).tobytes()

    @staticmethod
    def as_list(draw: Any) -> list[Any]:
        return [draw.token_id, draw.logprob, [list(top) for top in draw.top]]


async def _play(scenario: Any, masks: list[bytes], favourite: int) -> dict[str, Any]:
    from array import array
    from dataclasses import replace

    from py_engine.models.base import SamplingParams

    greedy = SamplingParams(temperature=0)
    adjusted = SamplingParams(
        temperature=1.3, top_p=0.95, top_k=200, min_p=0.001, seed=7, presence_penalty=0.4,
        frequency_penalty=0.2, repetition_penalty=1.2, logit_bias={3: 2.0, favourite: -1.0},
        top_logprobs=3,
    )  # fmt: skip
    model, prompt = scenario.model, scenario.prompt
    every = [b"\xff" * len(masks[0])] * len(masks)
    found = {
        "adjusted": await scenario.plain(adjusted),
        "adjusted again": await scenario.plain(adjusted),
        "adjusted in halves": await scenario.split(adjusted),
        "adjusted under an empty mask": await scenario.split(adjusted, every),
        "greedy": await scenario.plain(greedy),
        "greedy in halves": await scenario.split(greedy),
        "masked": await scenario.split(replace(greedy, top_logprobs=20), masks),
        "never again": await scenario.plain(replace(greedy, presence_penalty=1000.0)),
        "biased": await scenario.plain(replace(greedy, logit_bias={favourite: 1000.0})),
    }
    found["never again, again"] = await scenario.plain(replace(greedy, presence_penalty=1000.0))
    found["greedy after them"] = await scenario.plain(greedy)
    for kept in (1, len(prompt) - 1):
        assert model.reusable_tokens(kept) == kept
        found[f"greedy with {kept} kept"] = await scenario.plain(greedy, kept)
        found[f"logits with {kept} kept"] = await scenario.first_logits(kept)
    found["most kept"] = model.reusable_tokens(10**6)
    found["logits"] = await scenario.first_logits()

    logits = array("f", found["logits"])
    logits[favourite] = max(logits) + 1
    await scenario.prefill(greedy)
    model.first_logits()
    model.write_logits(logits)
    found["written"] = [scenario.as_list(await model.draw())]
    return found


def masks_and_allowed() -> tuple[list[bytes], list[set[int]]]:
    """Return a mask of a few random tokens for each step."""
    rng = np.random.default_rng(4)
    vocab_size = FIXTURE.case.config["vocab_size"]
    masks, allowed = [], []
    for _ in range(N_TOKENS):
        tokens = rng.choice(vocab_size, 5, replace=False)
        words = np.zeros(-(-vocab_size // 32), np.uint32)
        np.bitwise_or.at(words, tokens >> 5, (1 << (tokens & 31)).astype(np.uint32))
        masks.append(words.tobytes())
        allowed.append({int(token) for token in tokens})
    return masks, allowed


MASKS, ALLOWED = masks_and_allowed()
FAVOURITE = 11


def play_on_numpy(folder: Path) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        source = FolderSource(folder)
        checkpoint = await open_checkpoint(source)
        config = ChatConfig.from_json(checkpoint.config_json)
        model = await load_model(NumpyDevice(), checkpoint, config, lambda progress: None)
        scenario = Scenario(model, FIXTURE.prompt_ids, N_TOKENS, lambda data: data)
        return await _play(scenario, MASKS, FAVOURITE)

    return asyncio.run(run())


async def _play_in_worker(
    files: dict[str, bytes], prompt: list[int], n_tokens: int, masks: list[bytes], favourite: int
) -> dict[str, Any]:
    import json

    import js

    from py_engine.config import ChatConfig
    from py_engine.gpu.adapter import request_device
    from py_engine.models.loader import load_model
    from py_engine.storage.source import FileInfo
    from py_engine.weights.checkpoint import open_checkpoint

    def to_host(data):
        array = js.Uint8Array.new(len(data))
        array.assign(data)
        return array.buffer

    class Files:
        url, entry = "memory:/", ""

        async def list_files(self):
            return {path: FileInfo(len(data)) for path, data in files.items()}

        async def read_json(self, path):
            return json.loads(files[path])

        async def read_range(self, path, begin, end, on_bytes=None):
            data = js.Uint8Array.new(end - begin)
            data.assign(files[path][begin:end])
            return data.buffer

    device = await request_device()
    checkpoint = await open_checkpoint(Files())
    config = ChatConfig.from_json(checkpoint.config_json)
    model = await load_model(device, checkpoint, config, lambda progress: None)
    await model.reserve(1)  # after which all kernels are compiled
    try:
        return await _play(Scenario(model, prompt, n_tokens, to_host), masks, favourite)
    finally:
        model.destroy()
        device.destroy()


def play_on_webgpu(folder: Path, worker: EngineWorker) -> dict[str, Any]:
    parts = [inspect.getsource(part) for part in (Scenario, _play, _play_in_worker)]
    code = "\n".join(
        [
            "from __future__ import annotations",
            "from typing import Any",
            *parts,
            "await _play_in_worker(files, prompt, n_tokens, masks, favourite)",
        ]
    )
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    found: dict[str, Any] = worker.run(
        code,
        files=files,
        prompt=FIXTURE.prompt_ids,
        n_tokens=N_TOKENS,
        masks=MASKS,
        favourite=FAVOURITE,
    )
    return found


def tokens(draws: list[Any]) -> list[int]:
    return [draw[0] for draw in draws]


def check(found: dict[str, Any]) -> None:
    """Compare all ways with plain steps from a fresh prefill, and those with transformers."""
    greedy = FIXTURE.greedy_ids[:N_TOKENS]
    for way in ("greedy", "greedy in halves", "greedy after them"):
        assert found[way] == [[token, None, []] for token in greedy], way
    for way in ("adjusted again", "adjusted in halves", "adjusted under an empty mask"):
        assert found[way] == found["adjusted"], way
    check_logprobs(found["adjusted"])
    check_masked(found["masked"])
    assert len(set(tokens(found["never again"]))) == N_TOKENS
    assert found["never again, again"] == found["never again"]
    assert tokens(found["biased"]) == [FAVOURITE] * N_TOKENS
    assert found["written"] == [[FAVOURITE, None, []]]
    check_kept(found, greedy)


def check_logprobs(draws: list[Any]) -> None:
    for token, logprob, top in draws:
        values = [value for _, value in top]
        assert len(top) == 3
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) < 1
        assert dict(map(tuple, top)).get(token, logprob) == logprob <= values[0]
    assert len({token for token, _, _ in draws}) > 1


def check_masked(draws: list[Any]) -> None:
    for (token, logprob, top), allowed in zip(draws, ALLOWED, strict=True):
        assert {token for token, _ in top[:5]} == allowed
        assert top[0] == [token, logprob]
        assert sum(math.exp(value) for _, value in top) == pytest.approx(1, abs=1e-5)
        assert {value for _, value in top[5:]} == {-9999.0}


def check_kept(found: dict[str, Any], greedy: list[int]) -> None:
    prompt = FIXTURE.prompt_ids
    assert found["most kept"] == len(prompt)
    expected = array("f", found["logits"])
    reference = FIXTURE.logits_at(len(prompt) - 1)
    for kept in (1, len(prompt) - 1):
        assert tokens(found[f"greedy with {kept} kept"]) == greedy
        logits = np.frombuffer(found[f"logits with {kept} kept"], np.float32)
        for other in (np.array(expected), reference):
            assert np.abs(logits - other).max() / np.abs(other).max() < TOLERANCE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write_model_folder(FIXTURE, path)
    return path


def test_every_way_to_a_token_on_numpy(folder: Path) -> None:
    check(play_on_numpy(folder))


def test_every_way_to_a_token_on_webgpu(folder: Path, engine_worker: EngineWorker) -> None:
    check(play_on_webgpu(folder, engine_worker))
