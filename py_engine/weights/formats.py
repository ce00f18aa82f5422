"""How weights are stored: MLC's quantisation names, and the sizes of element types."""

from __future__ import annotations

from py_engine.config import ChatConfig
from py_engine.errors import UnknownQuantizationError
from py_engine.json_fields import shown
from py_engine.kernels.formats import WeightFormat

GROUP_SIZE = 32
"""Weights that share a scale, along the input dimension."""

CODES_PER_WORD = 8
"""4-bit codes in a u32, the first in the lowest bits."""

WEIGHT_FORMATS: tuple[WeightFormat, ...] = ("q4f16_1", "q4f32_1", "q0f16", "q0f32")


def parse_weight_format(name: str, where: str) -> WeightFormat:
    """Return `name` as a weight format. Raises UnknownQuantizationError, starting with `where`."""
    for known in WEIGHT_FORMATS:
        if name == known:
            return known
    raise UnknownQuantizationError(
        f"{where} is {shown(name)}, which is not a known weight format. "
        f"Known are {', '.join(WEIGHT_FORMATS)}: choose a build of the model in one of them."
    )


def weight_format(config: ChatConfig) -> WeightFormat:
    """Return the weight format of a configuration. Raises UnknownQuantizationError."""
    return parse_weight_format(config.quantization, f"{config.file}: quantization")
