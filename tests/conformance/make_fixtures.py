"""Writes `fixtures/*.npz`: python -m tests.conformance.make_fixtures (torch, transformers)."""

from __future__ import annotations

import json
from itertools import count

import numpy as np

from tests.conformance.fixtures import FOLDER
from tests.conformance.recipe import CASES, N_PROMPT, ROPE_CASES, Case
from tests.conformance.reference import Reference, run_reference, run_rope

MIN_MARGIN = 0.05
MIN_DISTINCT = 5


def find_seed(case: Case) -> tuple[int, Reference]:
    """Return the first seed whose greedy steps are clear and do not all repeat one token."""
    for seed in count():
        reference = run_reference(case, seed)
        distinct = len(set(reference.token_ids[N_PROMPT:]))
        if reference.margin >= MIN_MARGIN and distinct >= MIN_DISTINCT:
            return seed, reference
    raise AssertionError("unreachable")


def main() -> None:
    """Write one file per case."""
    FOLDER.mkdir(exist_ok=True)
    frequencies = [run_rope(head_dim, rope) for head_dim, rope in ROPE_CASES]
    (FOLDER / "rope.json").write_text(json.dumps(frequencies) + "\n")
    for case in CASES:
        seed, reference = find_seed(case)
        np.savez_compressed(
            FOLDER / f"{case.name}.npz",
            seed=np.int64(seed),
            token_ids=np.array(reference.token_ids, np.int32),
            positions=np.array(reference.positions, np.int32),
            logits=reference.logits,
        )
        spread = reference.logits.std()
        print(f"{case.name}: seed {seed}, margin {reference.margin:.3f}, spread {spread:.2f}")


if __name__ == "__main__":
    main()
