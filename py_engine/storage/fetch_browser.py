"""A model's files over HTTP: a folder on any web server, or a repository on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

import js

from py_engine.config import HuggingFaceConfig
from py_engine.errors import (
    CrossOriginError,
    MissingFileError,
    ModelFileError,
    ModelFileFormatError,
    NetworkError,
    RepositoryNotFoundError,
)
from py_engine.model_address import ModelAddress, parse_model_address
from py_engine.storage.bytes_browser import text_of
from py_engine.storage.http_browser import Body, Request, announced_length, header
from py_engine.storage.http_errors import Headers, status_error
from py_engine.storage.hub import HubRepository, chosen_gguf, next_page
from py_engine.storage.source import FileInfo, HostBytes, OnBytes, parse_json

_PARTIAL, _RANGE_NOT_SATISFIABLE = 206, 416


class FetchSource:
    """A `ModelSource` over a model's address (`model_address.py`), but for local files.

    A relative one is resolved against `base_url`, by default the location of the page or worker.
    `huggingface` says where the hub is. Cancelling a read aborts its request. `accepts_ranges`
    tells whether the server sends parts of files; None before it was asked for one.
    """

    def __init__(
        self,
        address: ModelAddress | str,
        *,
        base_url: str | None = None,
        huggingface: HuggingFaceConfig | None = None,
    ) -> None:
        config = huggingface or HuggingFaceConfig()
        if isinstance(address, str):
            address = parse_model_address(address, config.endpoint)
        self._address = address
        self._hub = HubRepository(address, config) if address.kind == "hub" else None
        folder = self._hub.folder_url if self._hub else address.place
        self.url: str = js.URL.new(folder, base_url or js.location.href).href
        self.entry = address.entry
        self.accepts_ranges: bool | None = None
        self._listing: dict[str, FileInfo] | None = None

    async def read_text(self, path: str) -> str:
        """Return a UTF-8 file."""
        return text_of(await self.read_bytes(path), f"{self.url}{path}")

    async def read_json(self, path: str) -> Any:
        """Return a parsed JSON file."""
        return parse_json(await self.read_text(path), f"{self.url}{path}")

    async def read_bytes(self, path: str, on_bytes: OnBytes | None = None) -> HostBytes:
        """Return a whole file as a JS ArrayBuffer."""
        with self._request(path) as request:
            response = await self._respond(request)
            return await Body(request.address, response, size=None, on_bytes=on_bytes).read()

    async def read_range(
        self, path: str, begin: int, end: int, on_bytes: OnBytes | None = None
    ) -> HostBytes:
        """Return a part of a file as a JS ArrayBuffer.

        From a server without ranges the file is read from its start and given up at `end`.
        """
        if begin >= end:
            return js.ArrayBuffer.new(0)
        with self._request(path, Range=f"bytes={begin}-{end - 1}") as request:
            response = await self._respond(request)
            self.accepts_ranges = int(response.status) == _PARTIAL
            skip = 0 if self.accepts_ranges else begin
            body = Body(request.address, response, skip=skip, size=end - begin, on_bytes=on_bytes)
            return await body.read()

    async def size(self, path: str) -> int:
        """Return a file's length, from the listing where there is one."""
        if self._listing and path in self._listing:
            return self._listing[path].size
        # Of all ways this one needs no leave (CORS), and its answer is never compressed: the
        # length of "the rest, from byte 0" is that of the file.
        with self._request(path, Range="bytes=0-") as request:
            response = await self._respond(request, accepted=(_RANGE_NOT_SATISFIABLE,))
            if int(response.status) == _RANGE_NOT_SATISFIABLE:
                return 0
            self.accepts_ranges = int(response.status) == _PARTIAL
            length = announced_length(response)
            if length is None:
                raise NetworkError(
                    f"{request.address}: its server does not say how long the file is. Serve it "
                    "with the header Content-Length, uncompressed."
                )
            return length

    async def list_files(self) -> dict[str, FileInfo] | None:
        """Return the files of a repository on the hub; None for other servers and bare mirrors."""
        if self._hub is None:
            return None
        if self._listing is None:
            try:
                self._listing = await self._read_tree(self._hub)
            except RepositoryNotFoundError:
                raise
            except (MissingFileError, ModelFileFormatError, CrossOriginError):
                if not self._hub.is_mirror:
                    raise
        return self._listing

    def choose_entry(self, files: Mapping[str, FileInfo]) -> None:
        """Set `entry` to the GGUF file that a repository's address means, if it means one.

        Raises MissingFileError when it is not among `files`.
        """
        self.entry = self.entry or chosen_gguf(files, self._address.quantization, self.url)

    async def _read_tree(self, hub: HubRepository) -> dict[str, FileInfo]:
        files: dict[str, FileInfo] = {}
        url: str | None = hub.tree_url
        while url:
            with Request(url, hub.headers(url)) as request:
                response = await self._respond(request)
                body = Body(request.address, response, size=None, on_bytes=None)
                page = text_of(await body.read(), request.address)
            files |= hub.files(parse_json(page, request.address))
            url = next_page(header(response, "link"))
        return files

    def request(self, path: str) -> tuple[str, dict[str, str]]:
        """Return the address to ask for a file, and the headers to send.

        Both may hold secrets: they are for the request alone. Raises MissingFileError for a path
        outside of the folder.
        """
        address = js.URL.new(quote(path), self.url)
        if not address.href.startswith(self.url):
            raise MissingFileError(
                f"{path!r} is not in the model's folder {self.url}. Correct the model's index."
            )
        if self._address.query:
            address.search = self._address.query
        return str(address.href), self._hub.headers(address.href) if self._hub else {}

    def refusal(self, address: str, status: int, header: Headers) -> ModelFileError:
        """Return the error for an answer that is not what was asked for."""
        error = status_error(address, status, header)
        return self._hub.explained(error, header("x-error-code")) if self._hub else error

    async def _respond(self, request: Request, *, accepted: tuple[int, ...] = ()) -> Any:
        return await request.respond(partial(self.refusal, request.address), accepted=accepted)

    def _request(self, path: str, **headers: str) -> Request:
        address, own = self.request(path)
        return Request(address, {**own, **headers})
