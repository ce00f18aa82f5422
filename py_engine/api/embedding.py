"""Embedding requests: OpenAI's fields with WebLLM's errors, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from py_engine.api.known_fields import EMBEDDING_FIELDS
from py_engine.api.numbers import integer
from py_engine.api.texts import TextOrIds, texts_or_ids
from py_engine.errors import EmbeddingInputEmptyError, EmbeddingUnsupportedEncodingFormatError
from py_engine.json_fields import JsonFields
from py_engine.json_values import shown

EncodingFormat = Literal["float", "base64"]


@dataclass(frozen=True, kw_only=True)
class EmbeddingRequest:
    """A checked request. `dimensions` None leaves the vectors as long as the model makes them."""

    inputs: tuple[TextOrIds, ...]
    model: str | None = None
    encoding_format: EncodingFormat = "float"
    dimensions: int | None = None
    unknown_fields: tuple[str, ...] = ()

    @staticmethod
    def from_dict(request: Mapping[str, Any]) -> EmbeddingRequest:
        """Check a request.

        Errors: EmbeddingInputEmptyError, EmbeddingUnsupportedEncodingFormatError, MinValueError,
        RangeError, ConfigValueError, each naming the field, its value and what it must be.
        """
        fields = EMBEDDING_FIELDS.read(request)
        return EmbeddingRequest(
            inputs=texts_or_ids(fields, "input", EmbeddingInputEmptyError),
            model=fields.string("model") if "model" in fields else None,
            encoding_format=_encoding_format(fields),
            dimensions=integer(fields, "dimensions"),
            unknown_fields=EMBEDDING_FIELDS.unknown(fields),
        )


def _encoding_format(fields: JsonFields) -> EncodingFormat:
    value = fields.value("encoding_format")
    if value is None or value == "float":
        return "float"
    if value == "base64":
        return "base64"
    raise EmbeddingUnsupportedEncodingFormatError(
        f"{fields.where('encoding_format')} is {shown(value)}, but must be 'float' or 'base64'."
    )
