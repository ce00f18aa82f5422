"""The stored results of transformers for the cases of `encoder_recipe.py`, and their models."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from py_engine.weights.quantization import F32
from tests.conformance.cases import Case
from tests.conformance.encoder_recipe import ENCODER_CASES, encoder_case, make_encoder_weights
from tests.conformance.fixtures import write_mlc_folder
from tests.conformance.recipe import FOLDER

TOKENIZER = FOLDER / "bert_tokenizer.json"
POOLINGS = ("cls", "mean")


@dataclass(frozen=True)
class EncoderFixture:
    """A case, a batch of token ids, and what transformers computes for it in f32.

    `hidden_states` f32 (tokens of all sequences, hidden) are the last ones, without padding;
    `pooled` and `normalized` f32 (sequences, hidden) are by pooling.
    """

    case: Case
    sequences: list[list[int]]
    hidden_states: F32
    pooled: dict[str, F32]
    normalized: dict[str, F32]

    def vectors(self, pooling: str, normalize: bool) -> F32:
        """Return the vectors of the sequences."""
        return (self.normalized if normalize else self.pooled)[pooling]


def encoder_names() -> list[str]:
    """Return the names of all cases."""
    return [case.name for case in ENCODER_CASES]


def store_encoder_fixture(fixture: EncoderFixture) -> None:
    """Write a fixture's file."""
    np.savez_compressed(
        FOLDER / f"{fixture.case.name}.npz",
        lengths=np.array([len(ids) for ids in fixture.sequences], np.int32),
        token_ids=np.array([i for ids in fixture.sequences for i in ids], np.int32),
        hidden_states=fixture.hidden_states,
        pooled=np.stack([fixture.pooled[name] for name in POOLINGS]),
        normalized=np.stack([fixture.normalized[name] for name in POOLINGS]),
    )


def load_encoder_fixture(name: str) -> EncoderFixture:
    """Return a stored fixture."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        token_ids = stored["token_ids"].tolist()
        ends = accumulate(stored["lengths"].tolist(), initial=0)
        return EncoderFixture(
            case=encoder_case(name),
            sequences=[token_ids[first:end] for first, end in pairwise(ends)],
            hidden_states=stored["hidden_states"],
            pooled=dict(zip(POOLINGS, stored["pooled"], strict=True)),
            normalized=dict(zip(POOLINGS, stored["normalized"], strict=True)),
        )


def write_encoder_folder(case: Case, target: Path) -> None:
    """Write a case's model as an MLC folder, with the tokenizer of the text case."""
    write_mlc_folder(case.config, make_encoder_weights(case), target, case.quantization)
    shutil.copyfile(TOKENIZER, target / "tokenizer.json")
