"""The stored results of transformers for the cases of `recipe.py`, and their models as folders."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from py_engine.weights.convert import write_model
from py_engine.weights.hf_config import chat_config_json
from py_engine.weights.quantization import F32
from tests.conformance.recipe import CASES, N_PROMPT, PREFILL_CHUNK_SIZE, Case, make_weights

FOLDER = Path(__file__).parent / "fixtures"


@dataclass(frozen=True)
class Fixture:
    """A case with its seed, and what transformers computes for it in f32.

    `logits[i]`, (vocab_size,), belong to the step that consumed `token_ids[positions[i]]`; the
    positions are some of the prompt's, its last one, and all of the greedy continuation.
    """

    case: Case
    seed: int
    token_ids: list[int]
    positions: list[int]
    logits: F32

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt."""
        return self.token_ids[:N_PROMPT]

    @property
    def greedy_ids(self) -> list[int]:
        """The greedy continuation of the prompt."""
        return self.token_ids[N_PROMPT:]

    def logits_at(self, position: int) -> F32:
        """Return the logits after the token at `position`, (vocab_size,)."""
        row: F32 = self.logits[self.positions.index(position)]
        return row


def fixture_names() -> list[str]:
    """Return the names of all cases."""
    return [case.name for case in CASES]


def load_fixture(name: str) -> Fixture:
    """Return a stored fixture."""
    case = next(case for case in CASES if case.name == name)
    with np.load(FOLDER / f"{name}.npz") as stored:
        return Fixture(
            case=case,
            seed=int(stored["seed"]),
            token_ids=stored["token_ids"].tolist(),
            positions=stored["positions"].tolist(),
            logits=stored["logits"],
        )


def load_rope() -> list[list[float]]:
    """Return transformers' rotation frequencies for `recipe.ROPE_CASES`."""
    frequencies: list[list[float]] = json.loads((FOLDER / "rope.json").read_text())
    return frequencies


def write_model_folder(fixture: Fixture, target: Path) -> None:
    """Write a fixture's model as an MLC folder (without a tokenizer)."""
    weights = make_weights(fixture.case, fixture.seed)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(fixture.case.config))
        config = chat_config_json(
            Path(folder), fixture.case.quantization, prefill_chunk_size=PREFILL_CHUNK_SIZE
        )
    target.mkdir(parents=True, exist_ok=True)
    write_model(target, config, weights.__getitem__)
