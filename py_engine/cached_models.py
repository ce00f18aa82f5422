"""What of an application's models the browser has stored: asked, listed, deleted.

Nothing is loaded for it, and no server is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from py_engine.config import AppConfig, prebuilt_app_config
from py_engine.errors import ConfigValueError, MissingFileError
from py_engine.host import EngineHost
from py_engine.storage.hub import chosen_gguf
from py_engine.storage.model_storage import ModelStorage, StoredModel
from py_engine.storage.source import FileInfo, ModelPlace
from py_engine.storage.unstored import NoStorage

Storage = ModelStorage | NoStorage

CONFIG_FILES = ("mlc-chat-config.json", "config.json")
_FURTHER_CONFIG_FILES = ("generation_config.json",)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PART = re.compile(r"-00001-of-(\d{5})\.gguf$", re.IGNORECASE)


class CachedModels:
    """Answers the functions of `model_cache.py`, each by the name of an action."""

    def __init__(self, host: EngineHost) -> None:
        self._host = host
        self._actions = {
            "has_model": self._has,
            "delete_model": self._delete_model,
            "delete_chat_config": self._delete_chat_config,
            "delete_model_wasm": self._delete_nothing,
            "delete_model_all_info": self._delete_all,
        }

    async def do(
        self, action: str, model_id: str | None, app_config: AppConfig | Mapping[str, Any] | None
    ) -> Any:
        """Do it; without an `app_config` for the prebuilt models.

        Errors: ModelNotFoundError; ConfigValueError for an unknown action; StorageError's classes.
        """
        if not isinstance(app_config, AppConfig):
            app_config = AppConfig.from_dict(app_config) if app_config else prebuilt_app_config
        storage = await self._host.open_storage(app_config)
        if action == "list_models":
            return await self._list(storage, app_config)
        if action not in self._actions or model_id is None:
            known = ", ".join(["list_models", *self._actions])
            raise ConfigValueError(
                f"action is {action!r} for the model {model_id!r}, but must be one of {known}, "
                "with a model_id for all but the first."
            )
        place = self._host.place_of(app_config.record(model_id), app_config)
        if place is None:  # files that the user picked
            return False if action == "has_model" else None
        found = [model for model in await storage.models() if model.url == place.url]
        return await self._actions[action](storage, place, found[0] if found else None)

    async def _has(self, storage: Storage, place: ModelPlace, model: StoredModel | None) -> bool:
        if model is not None and (weights := _weights(place, model)):
            return await storage.has(place.url, weights)
        is_complete = model is not None and model.is_complete
        return (
            (is_complete or await storage.has_other_weights(place.url))
            and await _has_one(storage, place.url, CONFIG_FILES)
            and await _has_one(storage, place.url, _TOKENIZER_FILES)
        )

    async def _delete_model(
        self, storage: Storage, place: ModelPlace, model: StoredModel | None
    ) -> None:
        paths = _weights(place, model) if model is not None else []
        if not paths:
            stored = {*(model.files if model is not None else ())}
            stored.update(await storage.other_paths(place.url))
            paths = [*stored.difference(CONFIG_FILES, _FURTHER_CONFIG_FILES)]
        await storage.delete(place.url, paths)

    async def _delete_chat_config(
        self, storage: Storage, place: ModelPlace, _model: StoredModel | None
    ) -> None:
        await storage.delete(place.url, (*CONFIG_FILES, *_FURTHER_CONFIG_FILES))

    async def _delete_nothing(
        self, _storage: Storage, _place: ModelPlace, _model: StoredModel | None
    ) -> None:
        """Delete the compiled library, which no model has here."""

    async def _delete_all(
        self, storage: Storage, place: ModelPlace, model: StoredModel | None
    ) -> None:
        weights = _weights(place, model) if model is not None else []
        if model is not None and any(path not in weights for path in model.files if weights):
            await storage.delete(place.url, weights)  # the folder has other models, too
        else:
            await storage.delete(place.url)

    async def _list(self, storage: Storage, app_config: AppConfig) -> list[dict[str, Any]]:
        ids: dict[str, list[tuple[str, ModelPlace]]] = {}
        for record in app_config.model_list:
            place = self._host.place_of(record, app_config)
            if place is not None:
                ids.setdefault(place.url, []).append((record.model_id, place))
        return [
            {
                "url": model.url,
                "model_ids": [
                    model_id
                    for model_id, place in ids.get(model.url, [])
                    if all(path in model.files for path in _weights(place, model)[:1])
                ],
                "stored_bytes": model.stored_bytes,
                "total_bytes": model.total_bytes,
                "is_complete": model.is_complete,
                "files": model.files,
            }
            for model in await storage.models()
        ]


def _weights(place: ModelPlace, model: StoredModel) -> Sequence[str]:
    """Return the GGUF file that a place means, with all its parts; none where it is a folder."""
    entry = place.entry
    if not entry:
        files = {path: FileInfo(size) for path, size in model.files.items()}
        try:
            entry = chosen_gguf(files, place.quantization, place.url)
        except MissingFileError:
            return [f"{place.quantization}.gguf"]  # which is not stored
    parts = _PART.search(entry)
    if parts is None:
        return [entry] if entry.lower().endswith(".gguf") else []
    stem, n = entry[: parts.start()], int(parts[1])
    return [f"{stem}-{i:05}-of-{n:05}.gguf" for i in range(1, n + 1)]


async def _has_one(storage: Storage, url: str, paths: Sequence[str]) -> bool:
    return any([await storage.has(url, [path]) for path in paths])
