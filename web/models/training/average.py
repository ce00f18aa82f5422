"""Average the weights of several checkpoints; the rest is taken from the last one."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def average(checkpoints: list[Path], out: Path) -> None:
    """Write a checkpoint from which train.py can go on with the mean of the weights."""
    states = [torch.load(path, weights_only=True) for path in checkpoints]
    last = states[-1]
    last["model"] = {
        name: sum(state["model"][name] for state in states) / len(states) for name in last["model"]
    }
    torch.save(last, out)


def main() -> None:
    """Average checkpoints, oldest first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="oldest first")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    average(args.checkpoints, args.out)


if __name__ == "__main__":
    main()
