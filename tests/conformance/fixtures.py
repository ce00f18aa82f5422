"""The stored results of transformers for the models of `cases.py`, and these models as folders."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from py_engine.weights.convert import write_model
from py_engine.weights.quantization import F32
from tests.conformance.cases import (
    CASES,
    N_PROMPT,
    PREFILL_CHUNK_SIZE,
    Case,
    case_named,
)
from tests.conformance.recipe import FOLDER, Tensors, make_weights, tensors_from_json
from tests.support.safetensors_file import write_safetensors

Dtype = Literal["F32", "F16", "BF16"]


@dataclass(frozen=True)
class Fixture:
    """A case with its seed, and what transformers computes for it in f32.

    `logits[i]`, (vocab_size,), are those after the first `positions[i] + 1` of `token_ids`; the
    positions are two within the prompt, its last one, and some of the greedy continuation.
    `logits_of_f16_cache` are the same with keys and values that were rounded to f16. `margins` are
    the gaps between the two best logits at every greedy step.
    """

    case: Case
    seed: int
    tensors: Tensors
    token_ids: list[int]
    positions: list[int]
    logits: F32
    logits_of_f16_cache: F32
    margins: list[float]

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt."""
        return self.token_ids[:N_PROMPT]

    @property
    def greedy_ids(self) -> list[int]:
        """The greedy continuation of the prompt."""
        return self.token_ids[N_PROMPT:]

    @property
    def prefix_lengths(self) -> list[int]:
        """Lengths of the prompt's beginnings whose logits are stored."""
        return [position + 1 for position in self.positions if position + 1 < N_PROMPT]

    def logits_at(self, position: int) -> F32:
        """Return the logits after the token at `position`, (vocab_size,)."""
        row: F32 = self.logits[self.positions.index(position)]
        return row


def fixture_names() -> list[str]:
    """Return the names of all cases."""
    return [case.name for case in CASES]


def load_fixture(name: str) -> Fixture:
    """Return a stored fixture."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        return Fixture(
            case=case_named(name),
            seed=int(stored["seed"]),
            tensors=tensors_from_json(stored["tensors"].tobytes().decode()),
            token_ids=stored["token_ids"].tolist(),
            positions=stored["positions"].tolist(),
            logits=stored["logits"],
            logits_of_f16_cache=stored["logits_of_f16_cache"],
            margins=stored["margins"].tolist(),
        )


def load_rope() -> list[list[float]]:
    """Return transformers' rotation frequencies for `cases.ROPE_CASES`."""
    frequencies: list[list[float]] = json.loads((FOLDER / "rope.json").read_text())
    return frequencies


def write_model_folder(fixture: Fixture, target: Path) -> None:
    """Write a fixture's model as an MLC folder (without a tokenizer)."""
    case = fixture.case
    weights = make_weights(case, fixture.seed)
    write_mlc_folder(case.config, weights, target, case.quantization, PREFILL_CHUNK_SIZE)


def write_mlc_folder(
    config: Mapping[str, Any],
    weights: Mapping[str, F32],
    target: Path,
    quantization: str,
    prefill_chunk_size: int | None = None,
) -> None:
    """Write a model of Hugging Face's configuration and weights as an MLC folder."""

    async def write(folder: Path) -> None:
        checkpoint = await open_checkpoint(FolderSource(folder))
        chunk = prefill_chunk_size or checkpoint.config_json["prefill_chunk_size"]
        written = {**checkpoint.config_json, "prefill_chunk_size": chunk}
        await write_model(checkpoint, written, target, quantization)

    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config))
        write_safetensors(folder / "model.safetensors", weights)
        # On a thread of its own: tests call this from within their event loops too.
        with ThreadPoolExecutor(1) as threads:
            threads.submit(asyncio.run, write(folder)).result()


def write_hf_folder(
    fixture: Fixture,
    target: Path,
    dtype: Dtype = "F32",
    *,
    config: Mapping[str, Any] | None = None,
    renamed: Callable[[str], str] = str,
) -> None:
    """Write a fixture's model as a Hugging Face folder (without a tokenizer), in two files.

    Every weight is exact in f32, and in the 16-bit type of the case's format. `config` goes before
    the case's; tensors are called what `renamed` makes of their names.
    """
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(config or fixture.case.config))
    made = make_weights(fixture.case, fixture.seed)
    weights = {renamed(name): made[name] for name in sorted(made)}
    index: dict[str, str] = {}
    for part in range(2):
        file = f"model-{part + 1:05}-of-00002.safetensors"
        names = list(weights)[part::2]
        index |= dict.fromkeys(names, file)
        write_safetensors(target / file, {name: weights[name] for name in names}, dtype)
    content = {"metadata": {}, "weight_map": index}
    (target / "model.safetensors.index.json").write_text(json.dumps(content))
