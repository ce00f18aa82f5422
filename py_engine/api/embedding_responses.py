"""Embedding responses."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from py_engine.api.embedding import EncodingFormat
from py_engine.api.objects import ApiObject

if TYPE_CHECKING:
    from py_engine.generation.statistics import Statistics


def embedding_response(
    model: str,
    vectors: Sequence[array[float]],
    statistics: Statistics,
    encoding_format: EncodingFormat,
) -> ApiObject:
    """Return the response with one f32 vector for each input.

    "base64" gives a vector as OpenAI's bytes: little-endian 32-bit floats.
    """
    encode = list if encoding_format == "float" else _base64
    return ApiObject(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": encode(vector)}
                for index, vector in enumerate(vectors)
            ],
            "model": model,
            "usage": _usage(statistics),
        }
    )


def _usage(statistics: Statistics) -> dict[str, Any]:
    return {
        "prompt_tokens": statistics.prefilled_tokens,
        "total_tokens": statistics.prefilled_tokens,
        "extra": {"prefill_tokens_per_s": statistics.prefill_tokens_per_s},
    }


def _base64(vector: array[float]) -> str:
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
