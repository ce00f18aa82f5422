"""From a model's record to the source of its files, in the browser."""

from __future__ import annotations

from functools import partial
from typing import Any

from py_engine.config import CHAT_CONFIG_FILE, AppConfig, ModelRecord
from py_engine.errors import MissingFileError, NetworkError
from py_engine.model_address import ModelAddress, parse_model_address
from py_engine.storage.fetch_browser import FetchSource
from py_engine.storage.integrity_source import IntegritySource
from py_engine.storage.model_storage import ModelStorage
from py_engine.storage.picked import local_address, picked_entries
from py_engine.storage.picked_browser import PickedSource, open_picked
from py_engine.storage.platform_browser import open_storage
from py_engine.storage.source import ModelPlace, ModelSource
from py_engine.storage.unstored import NoStorage


class BrowserSources:
    """Opens sources, and keeps the files that users picked, by their name.

    Relative addresses are resolved against `base_url`.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._picked: dict[str, PickedSource] = {}
        self._storages: dict[str, ModelStorage | NoStorage] = {}

    async def register_local_files(self, name: str, files: Any) -> str:
        """Keep picked files under a name; return the address that they are loaded by.

        Errors: ConfigurationFieldError, MissingFileError and ModelFileError, as `picked_entries`
        and `open_picked`.
        """
        address = local_address(name)
        self._picked[name] = await open_picked(name, picked_entries(files))
        return address

    async def open(self, record: ModelRecord, app_config: AppConfig) -> ModelSource:
        """Return the source of a record's files.

        Errors: ConfigurationFieldError for an address that is none, MissingFileError for local
        files that nobody registered.
        """
        address = parse_model_address(record.model, app_config.huggingface.endpoint)
        source = (
            self._local(address.place)
            if address.kind == "local"
            else await self._remote(address, app_config)
        )
        if record.integrity is None:
            return source
        storage = await self.open_storage(app_config)
        hashes = record.integrity.by_path(CHAT_CONFIG_FILE)
        forget = partial(storage.delete, source.url)
        return IntegritySource(source, hashes, record.integrity.onFailure, forget)

    def _local(self, name: str) -> PickedSource:
        if name not in self._picked:
            raise MissingFileError(
                f"{local_address(name)}: no files were registered under this name since the worker "
                "started. Let the user pick them and call "
                f"engine.register_local_files({name!r}, files) first."
            )
        return self._picked[name]

    def place_of(self, record: ModelRecord, app_config: AppConfig) -> ModelPlace | None:
        """Return where a record's files are kept; None for local files.

        Raises ConfigurationFieldError for an address that is none.
        """
        address = parse_model_address(record.model, app_config.huggingface.endpoint)
        if address.kind == "local":
            return None
        url = self._fetched(address, app_config).url
        return ModelPlace(url, address.entry, address.quantization)

    async def open_storage(self, app_config: AppConfig) -> ModelStorage | NoStorage:
        """Return the store of the configured kind, the same one at each call."""
        backend = app_config.cacheBackend or "opfs"
        if backend not in self._storages:
            self._storages[backend] = await open_storage(backend)
        return self._storages[backend]

    async def _remote(self, address: ModelAddress, app_config: AppConfig) -> ModelSource:
        remote = self._fetched(address, app_config)
        source = (await self.open_storage(app_config)).open(remote)
        if address.kind == "hub":
            await _choose_entry(remote, source, address)
        return source

    def _fetched(self, address: ModelAddress, app_config: AppConfig) -> FetchSource:
        config = app_config.huggingface
        return FetchSource(address, base_url=self._base_url, huggingface=config)


async def _choose_entry(remote: FetchSource, listed: ModelSource, address: ModelAddress) -> None:
    """Settle which file a repository's address means; what is stored must load offline too."""
    try:
        remote.choose_entry(await listed.list_files() or {})
    except NetworkError:
        if address.quantization:
            raise
