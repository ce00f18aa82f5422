"""A web server for the static site: right media types, revalidation, ranges, nothing else."""

from __future__ import annotations

import http.server
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from py_engine.tooling.steps import SetupError

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".py": "text/x-python; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class SiteServer:
    """Serves `folder`, and each of `mounts` (URL prefix -> folder), from a thread of its own.

    `port` 0 takes a free one; `url` ends without a slash. Use it as a context manager.
    `on_request` is called with path and status of every answer, from the server's threads.
    `headers` are sent with every file.
    """

    folder: Path
    port: int = 0
    mounts: Mapping[str, Path] = field(default_factory=dict)
    on_request: Callable[[str, int], None] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def handler(*arguments: Any) -> _Handler:
            return _Handler(*arguments, site=self)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> SiteServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def locate(self, path: str) -> Path:
        """Return the file that a URL path names; a folder stands for its index.html."""
        name = unquote(path)
        prefix = next((prefix for prefix in self.mounts if name.startswith(prefix)), None)
        folder = self.folder if prefix is None else self.mounts[prefix]
        inner = name.removeprefix(prefix or "/")
        parts = [part for part in inner.split("/") if part not in ("", ".", "..")]
        found = folder.joinpath(*parts)
        return found / "index.html" if found.is_dir() else found


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    timeout = 60

    def __init__(self, *arguments: Any, site: SiteServer) -> None:
        self.site = site
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        path = urlsplit(self.path).path
        try:
            file: BinaryIO = self.site.locate(path).open("rb")
        except OSError:
            return self.send_error(HTTPStatus.NOT_FOUND, f"there is no {path}")
        with file:
            status = os.fstat(file.fileno())
            tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
            if self.headers.get("If-None-Match") == tag:
                self.send_response(HTTPStatus.NOT_MODIFIED)
                self._send_cache_headers(tag)
                return self.end_headers()
            wanted = self._wanted_range(status.st_size)
            if len(wanted) == status.st_size:
                self.send_response(HTTPStatus.OK)
            elif wanted:
                self.send_response(HTTPStatus.PARTIAL_CONTENT)
                places = f"{wanted.start}-{wanted.stop - 1}"
                self.send_header("Content-Range", f"bytes {places}/{status.st_size}")
            else:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{status.st_size}")
            suffix = Path(file.name).suffix
            self.send_header("Content-Type", MEDIA_TYPES.get(suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(wanted)))
            self._send_cache_headers(tag)
            self.end_headers()
            if with_body and wanted:
                self._send_body(file, wanted)

    def _wanted_range(self, size: int) -> range:
        """Return the bytes that are asked for, none where the file does not have them.

        All of them, but for a single range from some byte on: others may be ignored (RFC 9110,
        14.2).
        """
        found = _RANGE.fullmatch(self.headers.get("Range", "").strip())
        if found is None or self.command != "GET":
            return range(size)
        first, end = int(found[1]), int(found[2] or size) + 1
        return range(size) if end <= first < size else range(first, min(end, size))

    def _send_cache_headers(self, tag: str) -> None:
        self.send_header("ETag", tag)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-cache")
        for name, value in self.site.headers.items():
            self.send_header(name, value)

    def _send_body(self, file: BinaryIO, wanted: range) -> None:
        try:
            self.connection.sendfile(file, wanted.start, len(wanted))
        except ConnectionError:
            self.close_connection = True  # the page went away meanwhile

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if self.site.on_request is not None:
            self.site.on_request(self.path, int(code))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing: a page makes dozens of requests."""


def serve_forever(folder: Path, port: int) -> int:
    """Serve a folder until Ctrl-C; return the exit status."""
    try:
        server = SiteServer(folder, port)
    except OSError as error:
        raise SetupError(
            "serve", f"port {port} cannot be used: {error}", "choose another one with --port"
        ) from error
    with server:
        print(f"{'serve':<12} {server.url}/  (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
    return 0
