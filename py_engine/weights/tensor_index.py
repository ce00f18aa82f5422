"""Looks tensors up in an index, and says what is wrong where they are not what is needed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from py_engine.errors import MissingTensorError, TensorShapeError
from py_engine.weights.records import TensorRecord

if TYPE_CHECKING:
    from py_engine.weights.group_packing import GroupPacking

_SAME = "Use weights and configuration of the same model."


@dataclass(frozen=True)
class TensorIndex:
    """The tensors that the file at `path` lists; `quantization` is how they are stored.

    `packing` is how AWQ or GPTQ packed linear layers of a model that is else in floats.
    """

    path: str
    tensors: Mapping[str, TensorRecord]
    quantization: str
    packing: GroupPacking | None = None

    def find(self, name: str) -> TensorRecord:
        """Return a tensor. Raises MissingTensorError."""
        record = self.tensors.get(name)
        if record is None:
            raise MissingTensorError(
                f"{self.path} has no tensor {name!r}, which the model's configuration asks for. "
                f"{_SAME}"
            )
        return record

    def typed(self, name: str, shape: tuple[int, ...], dtypes: Collection[str]) -> TensorRecord:
        """Return a tensor of this shape and one of these types.

        Errors: MissingTensorError, TensorShapeError.
        """
        record = self.find(name)
        if record.shape != shape:
            raise TensorShapeError(
                f"{self.path}: tensor {name!r} has shape {list(record.shape)}, but the model's "
                f"configuration asks for {list(shape)}. {_SAME}"
            )
        if record.dtype not in dtypes:
            raise TensorShapeError(
                f"{self.path}: tensor {name!r} is {record.dtype}, but must be "
                f"{' or '.join(dtypes)}. Choose the model in another format."
            )
        return record
