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
from tests.conformance.cases import CASES, GOLDEN, N_PROMPT, PREFILL_CHUNK_SIZE, case_named
from tests.conformance.fixtures import (
    fixture_names,
    load_fixture,
    write_model_folder,
)
from tests.conformance.recipe import FOLDER, make_prompt
from tests.conformance.test_decoder import TOLERANCE
from tests.support.mlc_files import mlc_shapes


@pytest.mark.parametrize("name", fixture_names())
def test_greedy_steps_are_clear(name: str) -> None:
    """No error within the tolerance can change a greedy token."""
    fixture = load_fixture(name)
    assert fixture.prompt_ids == make_prompt(fixture.case, fixture.seed)
    assert len(fixture.greedy_ids) == len(fixture.margins) == fixture.case.n_greedy >= 24
    assert min(fixture.margins) > 2 * TOLERANCE * np.abs(fixture.logits).max()
    assert len(fixture.prefix_lengths) == 2
    for row, position in enumerate(fixture.positions):
        if position >= N_PROMPT - 1:
            assert int(fixture.logits[row].argmax()) == fixture.token_ids[position + 1]


def test_each_family_has_a_golden_case() -> None:
    assert {family: case_named(name).family for family, name in GOLDEN.items()} == {
        case.family: case.family for case in CASES
    }


def test_fixtures_are_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 2_000_000


@pytest.mark.parametrize("name", fixture_names())
def test_folder_has_every_tensor(name: str, tmp_path: Path) -> None:
    write_model_folder(load_fixture(name), tmp_path)
    source = FolderSource(tmp_path)
    config = ChatConfig.from_json(asyncio.run(source.read_json(CHAT_CONFIG_FILE)))
    cache = asyncio.run(read_tensor_cache(source))
    assert decoder_spec(config).prefill_chunk_size == PREFILL_CHUNK_SIZE
    assert mlc_shapes(config) == {tensor.name: tensor.shape for tensor in cache.tensors.values()}
