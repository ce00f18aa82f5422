"""`ModelRecord`: one model that an application offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

from py_engine.errors import ConfigurationFieldError
from py_engine.integrity import ModelIntegrity
from py_engine.json_fields import JsonFields


class ModelType(IntEnum):
    """What a model is for, with WebLLM's numbers."""

    LLM = 0
    embedding = 1
    VLM = 2


@dataclass(frozen=True)
class ModelRecord:
    """One model that an application offers; `model` and `model_id` are enough.

    `model` says where its files are (`py_engine/model_address.py` lists the forms), `model_id` what
    it is called. `overrides` is merged over the model's own configuration. `required_features` are
    WebGPU features that the adapter must have. `vram_required_MB` (10^6 bytes of all buffers, with
    a full context), `buffer_size_required_bytes` (of the largest buffer) and
    `low_resource_required` (it runs on phones) are for choosing a model. `model_type` is needed
    only where the model's files do not tell. `integrity` has hashes of files. `architecture` is the
    model_type of the model's configuration, where it is known before it is loaded. `model_lib` and
    `model_manifest` belong to WebLLM's compiled libraries; they are kept, not used, and so is what
    `extra` holds.
    """

    model: str
    model_id: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    required_features: tuple[str, ...] = ()
    vram_required_MB: float | None = None
    low_resource_required: bool | None = None
    buffer_size_required_bytes: int | None = None
    model_type: ModelType | None = None
    integrity: ModelIntegrity | None = None
    architecture: str | None = None
    model_lib: str | None = None
    model_manifest: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_dict(data: Any) -> ModelRecord:
        """Read a record of WebLLM's `model_list`. Raises ConfigurationFieldError."""
        return ModelRecord.from_fields(
            JsonFields(data, "ModelRecord", error=ConfigurationFieldError)
        )

    @staticmethod
    def from_fields(item: JsonFields) -> ModelRecord:
        """Read a record. Raises the error class of `item`."""

        def text(name: str) -> str | None:
            return item.string(name) if name in item else None

        vram, size = "vram_required_MB", "buffer_size_required_bytes"
        return ModelRecord(
            model=_named(item, "model"),
            model_id=_named(item, "model_id"),
            overrides=dict(item.object("overrides").data),
            required_features=item.strings("required_features", ()),
            vram_required_MB=item.number(vram, minimum=0) if vram in item else None,
            low_resource_required=(
                item.boolean("low_resource_required") if "low_resource_required" in item else None
            ),
            buffer_size_required_bytes=item.integer(size, minimum=0) if size in item else None,
            model_type=_model_type(item),
            integrity=(
                ModelIntegrity.from_fields(item.object("integrity"))
                if "integrity" in item
                else None
            ),
            architecture=text("architecture"),
            model_lib=text("model_lib"),
            model_manifest=text("model_manifest"),
            extra={name: value for name, value in item.data.items() if name not in _FIELDS},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the record as WebLLM writes it, without empty fields."""
        values = {**self.extra, **{name: getattr(self, name) for name in _FIELDS}}
        values["overrides"] = dict(self.overrides)
        values["required_features"] = list(self.required_features)
        if self.integrity is not None:
            values["integrity"] = self.integrity.to_dict()
        if self.model_type is not None:
            values["model_type"] = int(self.model_type)
        return {name: value for name, value in values.items() if value not in (None, [], {})}


_FIELDS = tuple(item.name for item in fields(ModelRecord) if item.name != "extra")


def _named(item: JsonFields, name: str) -> str:
    if not item.string(name).strip():
        raise item.invalid(name, "a text that is not empty")
    return item.string(name)


def _model_type(item: JsonFields) -> ModelType | None:
    if "model_type" not in item:
        return None
    number = item.value("model_type")
    if isinstance(number, bool) or number not in list(ModelType):
        known = ", ".join(f"{kind.value} ({kind.name})" for kind in ModelType)
        raise item.invalid("model_type", f"one of {known}")
    return ModelType(number)
