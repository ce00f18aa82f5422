"""What a model's files should be: hashes from a listing, a manifest or an index of MLC's format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from py_engine.storage.identity import Identity
from py_engine.storage.source import FileInfo

MANIFEST_FILE = "model-manifest.json"
"""Written by `build.py convert`: `{"version": 1, "files": {path: {"size", "sha256", ...}}}`.

Of a large file it may have `piece_bytes` and `pieces`, the SHA-256 of every so many bytes of it.
"""

LISTING_NOTE, WANTED_NOTE = "?listing", "?wanted"
"""Kept beside a model's files: its listing, and the sizes of the files that loading it needs."""

MLC_INDEX_FILES = ("tensor-cache.json", "ndarray-cache.json")


class ExpectedFiles:
    """The identities of files by path, as far as they are known."""

    def __init__(self) -> None:
        self._known: dict[str, Identity] = {}
        self.listed: frozenset[str] | None = None
        """All paths there are, where the place could be listed."""

    def get(self, path: str) -> Identity | None:
        """Return what is known of a file."""
        return self._known.get(path)

    def add_listing(self, files: Mapping[str, FileInfo]) -> None:
        """Take over the listing of a place; its hashes count more than all others."""
        self.listed = frozenset(files)
        for path, info in files.items():
            self._add(path, Identity(info.size, info.sha256 or "", info.git_oid or ""), best=True)

    def add_file(self, path: str, text: str) -> None:
        """Take over the hashes in a file that was read, if it is one that has some."""
        is_index = path.rpartition("/")[2] in MLC_INDEX_FILES
        if path != MANIFEST_FILE and not is_index:
            return
        try:
            data = json.loads(text)
            found = _mlc_index(data) if is_index else _manifest(data)
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # whoever needs the file reports what is wrong with it
        for name, identity in found.items():
            self._add(name, identity)

    def _add(self, path: str, identity: Identity, best: bool = False) -> None:
        known = self._known.get(path)
        if known is None or known.size != identity.size:
            if known is None or best:
                self._known[path] = identity
            return
        first, second = (identity, known) if best else (known, identity)
        self._known[path] = Identity.from_dict({**second.to_dict(), **first.to_dict()})


def _manifest(data: Mapping[str, Any]) -> dict[str, Identity]:
    return {
        path: Identity(
            int(entry["size"]),
            sha256=str(entry["sha256"]).lower(),
            piece_bytes=int(entry.get("piece_bytes", 0)),
            pieces=tuple(str(piece).lower() for piece in entry.get("pieces", ())),
        )
        for path, entry in data["files"].items()
    }


def _mlc_index(data: Mapping[str, Any]) -> dict[str, Identity]:
    return {
        record["dataPath"]: Identity(int(record["nbytes"]), md5=str(record["md5sum"]).lower())
        for record in data["records"]
        if "md5sum" in record
    }


def mlc_shards(index: bytes) -> list[str]:
    """Return the files that an index of MLC's format names; none where it is damaged."""
    try:
        return [str(record["dataPath"]) for record in json.loads(index)["records"]]
    except (ValueError, KeyError, TypeError):
        return []


def listing_text(files: Mapping[str, FileInfo]) -> str:
    """Return a listing as text, to keep it for when there is no network."""
    return json.dumps({path: [*vars(info).values()] for path, info in sorted(files.items())})


def listing_from_text(text: str) -> dict[str, FileInfo]:
    """Read what `listing_text` made."""
    return {path: FileInfo(*values) for path, values in json.loads(text).items()}
