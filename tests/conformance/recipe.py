"""Random weights for the models of `cases.py`, made of NumPy alone, so that none need be stored.

Names, shapes and kinds of the tensors are transformers': `make_fixtures.py` asks its models, and
every case's fixture holds the answer. The same script gives transformers these weights; the tests
write them as MLC's and Hugging Face's folders and run them on our kernels.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from py_engine.kernels.formats import WeightFormat
from py_engine.weights.formats import QUANTIZATIONS
from py_engine.weights.quantization import F32, round_to_storage, stored_value
from tests.conformance.cases import N_PROMPT, Case

FOLDER = Path(__file__).parent / "fixtures"

Kind = Literal["matrix", "conv1d", "norm", "shifted_norm", "bias", "taps", "decay", "step"]
"""A conv1d is a matrix as [in][out]; a shifted norm scales by 1 + w. Of linear attention are taps
(channels, 1, size) of a convolution, a decay's logarithm, and what is added to a step."""

_ENDS = ("model.embed_tokens.weight", "lm_head.weight")

_OF_LINEAR_ATTENTION: Mapping[Kind, tuple[float, float]] = {
    "taps": (0.0, 1.0),
    "decay": (-1.5, 1.5),
    "step": (0.0, 3.0),
}
"""The middle and the spread of values; a memory lasts for 1 to 100 tokens."""

_ATTENTION_INPUTS = (
    *("q_proj", "k_proj", "qkv_proj", "c_attn", "query_key_value"),
    *("q_norm", "k_norm", "q_layernorm", "k_layernorm"),
)


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a checkpoint."""

    shape: tuple[int, ...]
    kind: Kind


Tensors = Mapping[str, TensorInfo]
"""The tensors of a checkpoint by their names in Hugging Face's files."""


def tensors_to_json(tensors: Tensors) -> str:
    """Return a checkpoint's tensors as text; `tensors_from_json` reads it."""
    return json.dumps({name: [info.kind, *info.shape] for name, info in tensors.items()})


def tensors_from_json(text: str) -> dict[str, TensorInfo]:
    """Undo `tensors_to_json`."""
    return {
        name: TensorInfo(tuple(shape), kind) for name, (kind, *shape) in json.loads(text).items()
    }


def stored_tensors(name: str) -> dict[str, TensorInfo]:
    """Return the tensors of the case `name`, as its fixture holds them."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        return tensors_from_json(stored["tensors"].tobytes().decode())


def make_weights(case: Case, seed: int) -> dict[str, F32]:
    """Draw the weights of a case's checkpoint, as `draw_weights`."""
    return draw_weights(case, stored_tensors(case.name), seed)


def draw_weights(case: Case, tensors: Tensors, seed: int) -> dict[str, F32]:
    """Draw a checkpoint's weights, before any quantisation.

    They are exact in the 16-bit type that the case's format stores floats in, so that files in that
    type, and those of vectors, hold them as they are.
    """
    return {
        name: _draw(np.random.PCG64([seed, zlib.crc32(name.encode())]), name, info, case)
        for name, info in tensors.items()
    }


def stored_weights(case: Case, tensors: Tensors, seed: int) -> dict[str, F32]:
    """Return what the drawn weights are worth after they went through the case's format."""
    weights = draw_weights(case, tensors, seed)
    return {name: _stored(name, weight, tensors[name], case) for name, weight in weights.items()}


def _format(case: Case) -> WeightFormat:
    found = QUANTIZATIONS.get(case.quantization)
    return cast(WeightFormat, case.quantization) if found is None else found.format


def _stored(name: str, weight: F32, info: TensorInfo, case: Case) -> F32:
    quantization = QUANTIZATIONS.get(case.quantization)
    if quantization is not None and quantization.plain_ends and name in _ENDS:
        return weight
    if info.kind == "taps":
        return weight
    stored = stored_value(weight.T if info.kind == "conv1d" else weight, _format(case))
    return stored.T if info.kind == "conv1d" else stored


def make_prompt(case: Case, seed: int) -> list[int]:
    """Draw the prompt's token ids."""
    raw = np.random.PCG64(seed + 1_000_000).random_raw(N_PROMPT)
    return [int(value % case.config["vocab_size"]) for value in raw]


def draw_uniform(bits: np.random.PCG64, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float64 numbers from -1 to 1."""
    # Raw bits are the same in every NumPy; the distributions of Generator need not be.
    raw = bits.random_raw(int(np.prod(shape))) >> np.uint64(40)
    return (raw.astype(np.float64) * 2.0**-23 - 1.0).reshape(shape)


def _draw(bits: np.random.PCG64, name: str, info: TensorInfo, case: Case) -> F32:
    uniform = draw_uniform(bits, info.shape)
    gain = _gain(name, case)
    if info.kind in _OF_LINEAR_ATTENTION:
        middle, spread = _OF_LINEAR_ATTENTION[info.kind]
        weight = (middle + spread * uniform).astype(np.float32)
        # Exact in either 16-bit type: some of it is stored in the shape of bf16 beside f16.
        return round_to_storage(round_to_storage(weight, "q0f32"), "q0f16")
    if info.kind == "bias":
        return round_to_storage((0.5 * gain * uniform).astype(np.float32), _format(case))
    if info.kind in ("norm", "shifted_norm"):
        scale = (gain * (1.0 + 0.3 * uniform)).astype(np.float32)
        # A shifted norm is exact with the 1 in it, as MLC stores it.
        shift = np.float32(info.kind == "shifted_norm")
        return round_to_storage(scale, _format(case)) - shift
    columns = info.shape[0 if info.kind == "conv1d" else 1]
    weight = (gain * np.sqrt(3.0 / columns) * uniform).astype(np.float32)
    return round_to_storage(weight, _format(case))


def _gain(name: str, case: Case) -> float:
    # Queries and keys are larger, so that attention is peaked and depends on the positions.
    if any(part in name for part in _ATTENTION_INPUTS):
        return 2.0
    # Gemma scales embeddings up: with others its tied head would repeat the last token.
    if case.family.startswith("gemma"):
        return {"model.embed_tokens.weight": 1 / 8, "model.norm.weight": 8.0}.get(name, 1.0)
    return 1.0
