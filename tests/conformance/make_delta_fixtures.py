"""Writes `fixtures/gated_delta_*`: python -m tests.conformance.make_delta_fixtures."""

from __future__ import annotations

import numpy as np

from tests.conformance.delta_cases import DELTA_CASES, run_transformers


def main() -> None:
    """Write one file per case."""
    for case in DELTA_CASES:
        at_once, in_steps = run_transformers(case)
        np.savez_compressed(case.path, output=at_once)
        difference = np.abs(at_once - in_steps).max() / np.abs(at_once).max()
        print(f"{case.name}: largest {np.abs(at_once).max():.2f}, in steps {difference:.1e} off")


if __name__ == "__main__":
    main()
