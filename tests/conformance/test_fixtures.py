"""The stored fixtures are a fair test, and their MLC folders hold the weights they stand for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from py_engine.config import CHAT_CONFIG_FILE, ChatConfig
from py_engine.models.registry import decoder_spec
from py_engine.storage.folder import FolderSource
from py_engine.weights.mlc import read_tensor_cache
from py_engine.weights.plan import weight_slots
from tests.conformance.fixtures import fixture_names, load_fixture, write_model_folder
from tests.conformance.recipe import N_PROMPT, PREFILL_CHUNK_SIZE, make_prompt


@pytest.mark.parametrize("name", fixture_names())
def test_greedy_steps_are_clear(name: str) -> None:
    fixture = load_fixture(name)
    assert fixture.prompt_ids == make_prompt(fixture.case, fixture.seed)
    assert len(fixture.greedy_ids) == fixture.case.n_greedy
    for step, token in enumerate(fixture.greedy_ids):
        logits = fixture.logits_at(N_PROMPT - 1 + step)
        second, best = np.sort(logits)[-2:]
        assert int(logits.argmax()) == token
        assert best - second > 1e-2


@pytest.mark.parametrize("name", fixture_names())
def test_folder_has_every_tensor(name: str, tmp_path: Path) -> None:
    write_model_folder(load_fixture(name), tmp_path)
    source = FolderSource(tmp_path)
    spec = decoder_spec(ChatConfig.from_json(asyncio.run(source.read_json(CHAT_CONFIG_FILE))))
    cache = asyncio.run(read_tensor_cache(source))
    assert spec.prefill_chunk_size == PREFILL_CHUNK_SIZE
    assert {slot.name: slot.shape for slot in weight_slots(spec)} == {
        tensor.name: tensor.shape for tensor in cache.tensors.values()
    }
