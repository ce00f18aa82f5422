"""How files store weights, by name: MLC's quantisations, and plain floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from py_engine.errors import UnknownQuantizationError
from py_engine.json_fields import shown
from py_engine.kernels.formats import MATRIX_FORMATS, FloatFormat, MlcFormat
from py_engine.kernels.relay import Float

WORDS_PER_GROUP = 4
"""u32 that hold the codes of weights that share a scale."""

TABLE_ROLES = frozenset(("embedding", "positions", "token_types"))
"""What single rows are read of: never transposed."""

END_ROLES = TABLE_ROLES | {"lm_head"}
"""What a quantisation with plain ends leaves as it is."""


@dataclass(frozen=True)
class Quantization:
    """One of MLC's ways to store quantised weights, and the `format` that the kernels read.

    In `transposed` ones linear layers are stored as [words][rows], tables are not. With
    `plain_ends` tables and head are not quantised.
    Source: MLC-LLM's `quantization.py` and `group_quantization.py`.
    """

    format: MlcFormat
    transposed: bool = False
    plain_ends: bool = False

    @property
    def halfs(self) -> bool:
        """Whether floats are stored as f16; otherwise they are f32 in the shape of bf16."""
        return MATRIX_FORMATS[self.format].scale == "f16"

    def groups(self, columns: int) -> int:
        """Return the scales of a row, the last of which may be of fewer weights."""
        return MATRIX_FORMATS[self.format].row_blocks(columns)

    def words(self, columns: int) -> int:
        """Return the u32 of a row's codes."""
        return WORDS_PER_GROUP * self.groups(columns)

    def is_transposed(self, role: str) -> bool:
        """Tell whether the matrix of a role is stored transposed."""
        return self.transposed and role not in TABLE_ROLES


QUANTIZATIONS: Mapping[str, Quantization] = {
    "q4f16_0": Quantization("q4f16_1", transposed=True),
    "q4f16_1": Quantization("q4f16_1"),
    "q4f16_2": Quantization("q4f16_1", plain_ends=True),
    "q4f32_1": Quantization("q4f32_1"),
    "q3f16_0": Quantization("q3f16_1", transposed=True),
    "q3f16_1": Quantization("q3f16_1"),
}
"""MLC's quantisations by name."""

PLAIN_FORMATS: Mapping[str, FloatFormat] = {"F16": "q0f16", "BF16": "q0bf16", "F32": "q0f32"}
"""The format of unquantised weights, by the type of their elements."""

FLOAT_TYPES: Mapping[str, Float] = {"F16": "f16", "BF16": "bf16", "F32": "f32"}
"""The names that the loading kernels have for these types."""

MLC_FORMATS = (*QUANTIZATIONS, *PLAIN_FORMATS.values())
"""MLC's names that are read."""


def is_plain(name: str) -> bool:
    """Whether weights with the quantization `name` are not quantised."""
    return name in PLAIN_FORMATS.values()


def quantization_of(name: str, role: str) -> Quantization | None:
    """Return how the matrix of `role` is quantised in a model with the quantization `name`.

    None where it is not.
    """
    found = QUANTIZATIONS.get(name)
    return None if found is not None and found.plain_ends and role in END_ROLES else found


def float_format(name: str) -> FloatFormat:
    """Return the format of what is not quantised in a model with the quantization `name`."""
    for plain in PLAIN_FORMATS.values():
        if plain == name:
            return plain
    return "q0f16" if QUANTIZATIONS[name].halfs else "q0f32"


def require_known(name: str, where: str) -> None:
    """Raise UnknownQuantizationError, starting with `where`, unless `name` is one of MLC's."""
    if name not in MLC_FORMATS:
        raise UnknownQuantizationError(
            f"{where} is {shown(name)}, which is not a known weight format. "
            f"Known are {', '.join(MLC_FORMATS)}: choose a build of the model in one of them."
        )
