"""A web server that goes wrong as `FaultyFiles` says, for pages of any site."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.support.faulty_files import Answer, FaultyFiles

_EXPOSED = "Content-Range, ETag, Retry-After"
_STALL_S = 60
_BLOCK_BYTES = 1 << 16


class FaultyServer(ThreadingHTTPServer):
    """Serves `files` below `url`. `delay_s` comes before each block of a body."""

    daemon_threads = True

    def __init__(self, files: FaultyFiles, delay_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.delay_s = delay_s
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that leave are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def do_GET(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        begin, end = (int(found[1]), int(found[2]) + 1) if found else (None, 0)
        with self.server.lock:
            answer = self.server.files.answer(unquote(self.path[1:]), begin, end)
        if answer is None:
            self.close_connection = True
            return
        try:
            self._send(answer)
        except ConnectionError:
            self.close_connection = True  # the client went away

    def do_HEAD(self) -> None:
        self.close_connection = True

    def do_OPTIONS(self) -> None:
        """Refuse preflights: nothing that is asked for should need one."""
        self.close_connection = True

    def _send(self, answer: Answer) -> None:
        is_chunked = "Content-Length" not in answer.headers and answer.status in (200, 206)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Expose-Headers", _EXPOSED)
        if is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        for offset in range(0, len(answer.body), _BLOCK_BYTES):
            time.sleep(self.server.delay_s)
            block = answer.body[offset : offset + _BLOCK_BYTES]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if is_chunked else block)
        if answer.end == "stall":
            self.wfile.flush()
            self.connection.settimeout(_STALL_S)
            self.connection.recv(1)
        if answer.end != "end":
            self.close_connection = True
        elif is_chunked:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""


@contextmanager
def faulty_server(files: FaultyFiles, delay_s: float = 0.0) -> Iterator[FaultyServer]:
    """Serve from threads of its own until the block ends."""
    with FaultyServer(files, delay_s) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
