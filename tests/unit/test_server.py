"""The static server: media types, revalidation, and only the folder it was given."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from py_engine.tooling.server import SiteServer, serve_forever
from py_engine.tooling.steps import SetupError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SiteServer]:
    site, extra = tmp_path / "site", tmp_path / "extra"
    for folder in (site, extra):
        folder.mkdir()
        (folder / "index.html").write_text(folder.name)
    (tmp_path / "secret").write_text("secret")
    with SiteServer(site, mounts={"/extra/": extra}) as server:
        yield server


def ask(server: SiteServer, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    return ask_for_headers(server, path, method, **headers)[:2]


def ask_for_headers(
    server: SiteServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(
        method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body, response.headers


def test_folder_is_its_index(server: SiteServer) -> None:
    assert ask(server, "/") == (200, b"site")
    assert ask(server, "/?autoload=1") == (200, b"site")
    assert ask(server, "/extra/index.html") == (200, b"extra")


def test_head_has_no_body(server: SiteServer) -> None:
    status, body, headers = ask_for_headers(server, "/", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "4")


@pytest.mark.parametrize("path", ["/nothing", "/../secret", "/%2e%2e/secret", "//etc/passwd"])
def test_what_is_not_in_the_folder_is_not_found(server: SiteServer, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.wasm", "application/wasm"),
        ("a.snap.gz", "application/octet-stream"),
        ("a.whl", "application/octet-stream"),
        ("a.json", "application/json"),
    ],
)
def test_media_types(server: SiteServer, name: str, media_type: str) -> None:
    (server.folder / name).write_bytes(b"content")
    status, body, headers = ask_for_headers(server, f"/{name}")
    assert (status, body, headers["Content-Type"]) == (200, b"content", media_type)
    assert "Content-Encoding" not in headers


def test_cached_file_is_sent_again_only_when_it_changed(server: SiteServer) -> None:
    tag = ask_for_headers(server, "/")[2]["ETag"]
    status, body, headers = ask_for_headers(server, "/", If_None_Match=tag)
    assert (status, body, headers["Cache-Control"]) == (304, b"", "no-cache")
    (server.folder / "index.html").write_text("news")
    assert ask(server, "/", If_None_Match=tag) == (200, b"news")


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=1-2", 206, b"it", "bytes 1-2/4"),
        ("bytes=2-", 206, b"te", "bytes 2-3/4"),
        ("bytes=1-99", 206, b"ite", "bytes 1-3/4"),
        ("bytes=0-3", 200, b"site", None),
        ("bytes=4-5", 416, b"", "bytes */4"),
        ("bytes=2-1", 200, b"site", None),
        ("bytes=-2", 200, b"site", None),
        ("bytes=0-0,2-3", 200, b"site", None),
        ("lines=0-1", 200, b"site", None),
    ],
)
def test_ranges(
    server: SiteServer, asked: str, status: int, body: bytes, content_range: str | None
) -> None:
    found = ask_for_headers(server, "/", Range=asked)
    assert (found[0], found[1], found[2]["Content-Range"]) == (status, body, content_range)
    assert found[2]["Accept-Ranges"] == "bytes"


def test_ranges_are_of_bodies_that_there_are(server: SiteServer) -> None:
    assert ask_for_headers(server, "/", "HEAD", Range="bytes=1-2")[0] == 200
    (server.folder / "empty.bin").write_bytes(b"")
    assert ask(server, "/empty.bin") == (200, b"")
    assert ask(server, "/empty.bin", Range="bytes=0-0") == (200, b"")


def test_taken_port_is_a_clear_error(server: SiteServer) -> None:
    with pytest.raises(SetupError, match=rf"port {server.port} cannot be used.*\n.*--port"):
        serve_forever(server.folder, server.port)
