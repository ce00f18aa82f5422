"""A server that keeps the hub's conventions: listings by pages, large files elsewhere, tokens."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_the_test"
_PAGE_ENTRIES = 2


class HubServer(ThreadingHTTPServer):
    """Serves repositories below `url`: `files` by `owner/name@revision`.

    A repository whose owner is "gated" wants TOKEN. Files of LFS's size are redirected to `cdn`,
    the URL of a server of the same files. `asked` has the paths with their Authorization.
    """

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]], cdn: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.cdn = cdn
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that leave are part of the tests."""


def is_large(data: bytes) -> bool:
    """Whether a file is kept by LFS."""
    return len(data) > 100_000


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_OPTIONS(self) -> None:
        self._send(204, b"", Access_Control_Allow_Headers="authorization, range")

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        token = self.headers.get("Authorization")
        self.server.asked.append((target.path, token))
        parts = target.path.removeprefix("/api/models").strip("/").split("/", 4)
        owner, name, verb, revision, *path = parts
        files = self.server.repositories.get(f"{owner}/{name}@{unquote(revision)}")
        if owner == "gated" and token != f"Bearer {TOKEN}":
            self._send(401, b"", X_Error_Code="GatedRepo")
        elif files is None:
            self._send(404, b"", X_Error_Code="RevisionNotFound")
        elif verb == "tree":
            self._send_tree(files, int(parse_qs(target.query).get("cursor", ["0"])[0]))
        elif "".join(path) not in files:
            self._send(404, b"", X_Error_Code="EntryNotFound")
        elif is_large(files[path[0]]):
            self._send(302, b"", Location=f"{self.server.cdn}{path[0]}")
        else:
            self._send(200, files[path[0]])

    def _send_tree(self, files: Mapping[str, bytes], begin: int) -> None:
        entries = [_entry(path, files[path]) for path in sorted(files)]
        end = begin + _PAGE_ENTRIES
        more = f"{self.server.url}{self.path.partition('&')[0]}&cursor={end}"
        link = {"Link": f'<{more}>; rel="next"'} if end < len(entries) else {}
        self._send(200, json.dumps(entries[begin:end]).encode(), **link)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Expose-Headers", "Link, X-Error-Code, ETag")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""


def _entry(path: str, data: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "oid": oid, "size": len(data)}
    if is_large(data):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return entry


@contextmanager
def hub_server(repositories: Mapping[str, Mapping[str, bytes]], cdn: str) -> Iterator[HubServer]:
    """Serve from threads of its own until the block ends."""
    with HubServer(repositories, cdn) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
