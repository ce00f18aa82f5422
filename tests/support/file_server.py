"""A web server whose files go wrong in the ways that files on the web do."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONTENT = bytes(range(251)) * 4000
TEXT = "ein Blümchen, 一朵花, 🌼"


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path, and the routes of `_Handler`, to pages of any site.

    `aborted` is set when a client leaves `/stalled` before its end.
    """

    daemon_threads = True

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.aborted = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that leave are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        route = getattr(self, f"send_{name.partition('.')[0]}", None)
        if name in self.server.files:
            self.send(self.server.files[name])
        elif route is None:
            self.send(b"there is no such file", status=404)
        else:
            route()

    def send(
        self, body: bytes, *, status: int = 200, announced: int | None = None, **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("Cache-Control", "no-store")
        for name, value in {"Access-Control-Allow-Origin": "*", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        if announced != -1:
            self.send_header("Content-Length", str(len(body) if announced is None else announced))
        if announced is not None:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def send_whole(self) -> None:
        self.send(CONTENT)

    def send_ranged(self) -> None:
        """A file in parts; pages of other sites do not see Content-Range."""
        asked = self.headers.get("Range")
        begin, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        part = CONTENT[int(begin) : int(last) + 1 if last else None]
        whole = f"bytes {begin}-{int(begin) + len(part) - 1}/{len(CONTENT)}"
        if asked is None:
            self.send(CONTENT)
        elif part:
            self.send(part, status=206, Content_Range=whole)
        else:
            self.send(b"", status=416)

    def send_short(self) -> None:
        """A part of which the end is missing."""
        self.send(CONTENT[:5], status=206)

    def send_large(self) -> None:
        self.send(CONTENT * 24)

    def send_empty(self) -> None:
        self.send(b"")

    def send_unannounced(self) -> None:
        self.send(CONTENT * 3, announced=-1)

    def send_truncated(self) -> None:
        self.send(CONTENT[:-7], announced=len(CONTENT))

    def send_broken(self) -> None:
        """A chunked body whose last chunk never comes."""
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nhello\r\n")
        self.close_connection = True

    def send_compressed(self) -> None:
        self.send(gzip.compress(CONTENT), Content_Encoding="gzip")

    def send_private(self) -> None:
        self.send(b"", status=401)

    def send_overloaded(self) -> None:
        self.send(b"", status=503, Retry_After="9", Access_Control_Expose_Headers="Retry-After")

    def send_foreign(self) -> None:
        """A file that other sites may not read."""
        self.send(CONTENT, Access_Control_Allow_Origin="https://example.org")

    def send_page(self) -> None:
        """What a single-page site sends for every unknown path."""
        self.send(b"<!doctype html><title>Home</title>", Content_Type="text/html")

    def send_text(self) -> None:
        self.send(TEXT.encode())

    def send_latin(self) -> None:
        self.send("Blümchen".encode("latin-1"))

    def send_stalled(self) -> None:
        try:
            self.send(CONTENT, announced=len(CONTENT) + 1)
            self.connection.recv(1)
        except ConnectionError:
            pass
        self.server.aborted.set()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""


@contextmanager
def file_server(files: Mapping[str, bytes] | None = None) -> Iterator[FileServer]:
    """Serve from a thread of its own until the block ends."""
    with FileServer(files or {}) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
