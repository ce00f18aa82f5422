"""Train the model on packed rows: AdamW, warmup - constant - linear decay, resumable.

The decay phase begins by wall clock (``--stop-at`` minus ``--decay-minutes``), reads the second
stream of rows and trains with fake-quantised weights, so that the 4-bit model loses little.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model import Llama, ModelConfig, count_parameters, quantize_dequantize
from torch import Tensor

WEIGHT_UNIT = 10.0
"""Loss weights are stored as integers; this one stands for 1.0."""


@dataclass
class Progress:
    """What has to survive a restart besides model and optimiser."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    phase: str = "main"
    row: int = 0
    decay_started: float = 0.0


@dataclass
class Rows:
    """Packed token rows with a loss weight for every token."""

    tokens: np.ndarray
    weights: np.ndarray

    @classmethod
    def load(cls, folder: Path, name: str) -> Rows:
        """Map the two arrays of one stream."""
        return cls(
            np.load(folder / f"{name}.npy", mmap_mode="r"),
            np.load(folder / f"{name}.weights.npy", mmap_mode="r"),
        )

    def batch(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """Return ``count`` rows from ``start`` on, wrapping at the end."""
        index = np.arange(start, start + count) % len(self.tokens)
        tokens = torch.from_numpy(self.tokens[index].astype(np.int64))
        weights = torch.from_numpy(self.weights[index].astype(np.float32)) / WEIGHT_UNIT
        return tokens, weights


def loss_of(model: Any, tokens: Tensor, weights: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    """Return the training loss (with z-loss) and the weighted cross-entropy alone."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(tokens[:, :-1])
    logits = logits.float().flatten(0, 1)
    target, weight = tokens[:, 1:].flatten(), weights[:, 1:].flatten()
    log_z = torch.logsumexp(logits, dim=-1)
    entropy = log_z - logits.gather(1, target[:, None]).squeeze(1)
    total = weight.sum().clamp_min(1.0)
    cross = (entropy * weight).sum() / total
    return cross + z_loss * (log_z.square() * weight).sum() / total, cross.detach()


class QuantizedWeights:
    """Quantisation-aware training with a straight-through gradient.

    Within the ``with`` block the matrices hold what q4f16_1 makes of them, so that the gradients
    are those of the 4-bit model; afterwards the exact weights are back and receive these gradients.
    """

    def __init__(self, model: Llama) -> None:
        self.matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
        self.exact = [torch.empty_like(parameter) for parameter in self.matrices]
        self.active = False

    @torch.no_grad()
    def __enter__(self) -> None:
        if self.active:
            for matrix, exact in zip(self.matrices, self.exact, strict=True):
                exact.copy_(matrix)
                matrix.copy_(quantize_dequantize(matrix))

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        if self.active:
            for matrix, exact in zip(self.matrices, self.exact, strict=True):
                matrix.copy_(exact)


def make_optimizer(model: Llama, peak: float, decay: float) -> torch.optim.AdamW:
    """AdamW with weight decay on the matrices only."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() != 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=peak,
        betas=(0.9, 0.95),
        eps=1e-8,
        fused=True,
    )


def save(path: Path, model: Llama, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write a checkpoint in one atomic step."""
    temporary = path.with_suffix(".tmp")
    torch.save(
        {
            "config": model.config.as_dict(),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": asdict(progress),
            "rng": torch.get_rng_state(),
        },
        temporary,
    )
    temporary.replace(path)


def resume(path: Path, model: Llama, optimizer: torch.optim.Optimizer) -> Progress:
    """Load a checkpoint into model and optimiser and return the progress."""
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    return Progress(**state["progress"])


def next_clock(text: str, now: float) -> float:
    """Return the Unix time of the next ``HH:MM`` (UTC) after ``now``."""
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    hour, minute = (int(part) for part in text.split(":"))
    target = moment.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if target <= moment:
        target += dt.timedelta(days=1)
    return target.timestamp()


def learning_rate(progress: Progress, peak: float, warmup: int, now: float, stop: float) -> float:
    """Warmup by steps, constant, then linear decay by the clock."""
    if progress.phase == "decay":
        span = max(stop - progress.decay_started, 1.0)
        return peak * max(0.0, min(1.0, (stop - now) / span))
    return peak * min(1.0, (progress.step + 1) / warmup)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the packed rows")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and log")
    parser.add_argument("--stop-at", required=True, help="UTC HH:MM at which training ends")
    parser.add_argument("--decay-minutes", type=float, default=22.0)
    parser.add_argument("--save-minutes", type=float, default=3.0)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--peak", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--z-loss", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-steps", type=int, default=0, help="stop early (for timing)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compile", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Train until the clock says stop."""
    args = parse_arguments()
    args.run.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(args.run / "inductor"))
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    stop = next_clock(args.stop_at, time.time())
    model = Llama(ModelConfig())
    optimizer = make_optimizer(model, args.peak, args.weight_decay)
    checkpoint = args.run / "checkpoint.pt"
    progress = resume(checkpoint, model, optimizer) if checkpoint.exists() else Progress()
    streams = {name: Rows.load(args.data, name) for name in ("main", "decay")}
    quantized = QuantizedWeights(model)
    quantized.active = progress.phase == "decay"
    step_loss = loss_of if args.no_compile else torch.compile(loss_of, dynamic=False)
    log_path = args.run / "log.jsonl"
    print(f"{count_parameters(model)} parameters, from step {progress.step}", flush=True)

    halted = False

    def halt(*_: object) -> None:
        nonlocal halted
        halted = True

    signal.signal(signal.SIGTERM, halt)
    last_save = last_log = time.time()
    tokens_at_log, running = progress.tokens, []
    while not halted:
        now = time.time()
        if now >= stop or (args.max_steps and progress.step >= args.max_steps):
            break
        if progress.phase == "main" and now >= stop - 60 * args.decay_minutes:
            save(args.run / "before-decay.pt", model, optimizer, progress)
            progress.phase, progress.row, progress.decay_started = "decay", 0, now
            quantized.active = True
            print(f"decay begins at step {progress.step}, {progress.tokens} tokens", flush=True)
        rate = learning_rate(progress, args.peak, args.warmup, now, stop)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = streams[progress.phase]
        count = max(1, args.batch_tokens // (rows.tokens.shape[1] - 1))
        tokens, weights = rows.batch(progress.row, count)
        optimizer.zero_grad(set_to_none=True)
        with quantized:
            loss, cross = step_loss(model, tokens, weights, args.z_loss)
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
        progress.step += 1
        progress.row += count
        progress.tokens += count * (rows.tokens.shape[1] - 1)
        progress.seconds += time.time() - now
        running.append(float(cross))
        now = time.time()
        if progress.step % 20 == 0:
            record = {
                "step": progress.step,
                "tokens": progress.tokens,
                "phase": progress.phase,
                "loss": round(float(np.mean(running)), 4),
                "norm": round(float(norm), 3),
                "lr": round(rate, 6),
                "tokens_per_s": round((progress.tokens - tokens_at_log) / (now - last_log)),
                "time": dt.datetime.fromtimestamp(now, dt.UTC).strftime("%H:%M:%S"),
            }
            with log_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            last_log, tokens_at_log, running = now, progress.tokens, []
        if now - last_save > 60 * args.save_minutes:
            save(checkpoint, model, optimizer, progress)
            last_save = now
    save(checkpoint, model, optimizer, progress)
    print(f"stopped at step {progress.step}, {progress.tokens} tokens", flush=True)


if __name__ == "__main__":
    main()
