"""Writes `fixtures/*.npz`: python -m tests.conformance.make_fixtures [NAME...] (transformers).

Without names it writes those of all cases, and the frequencies of RoPE.
"""

from __future__ import annotations

import json
import sys
from itertools import count

import numpy as np

from tests.conformance.cases import CASES, N_PROMPT, ROPE_CASES, Case, case_named
from tests.conformance.recipe import FOLDER, Tensors, tensors_to_json
from tests.conformance.reference import (
    Reference,
    checkpoint_tensors,
    run_reference,
    run_rope,
)

MIN_MARGIN = 0.05
MIN_DISTINCT = 6


def find_seed(case: Case, tensors: Tensors) -> tuple[int, Reference]:
    """Return the first seed whose greedy steps are clear and do not all repeat a few tokens."""
    for seed in count():
        reference = run_reference(case, tensors, seed, MIN_MARGIN)
        if reference and len(set(reference.token_ids[N_PROMPT:])) >= MIN_DISTINCT:
            return seed, reference
    raise AssertionError("unreachable")


def write_fixture(case: Case) -> None:
    """Write the file of a case."""
    seed, reference = find_seed(case, checkpoint_tensors(case))
    tensors = tensors_to_json(reference.tensors).encode()
    np.savez_compressed(
        FOLDER / f"{case.name}.npz",
        seed=np.int64(seed),
        tensors=np.frombuffer(tensors, np.uint8),
        token_ids=np.array(reference.token_ids, np.int32),
        positions=np.array(reference.positions, np.int32),
        logits=reference.logits,
        logits_of_f16_cache=reference.logits_of_f16_cache,
        margins=reference.margins,
    )
    spread = reference.logits.std()
    print(f"{case.name}: seed {seed}, margin {reference.margins.min():.3f}, spread {spread:.2f}")


def main(names: list[str]) -> None:
    """Write one file per case, of all or of those named."""
    FOLDER.mkdir(exist_ok=True)
    if not names:
        frequencies = [run_rope(head_dim, rope) for head_dim, rope in ROPE_CASES]
        (FOLDER / "rope.json").write_text(json.dumps(frequencies) + "\n")
    for case in map(case_named, names) if names else CASES:
        write_fixture(case)


if __name__ == "__main__":
    main(sys.argv[1:])
