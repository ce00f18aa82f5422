"""Which content a file has: its size, hashes and what a server calls this version of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from py_engine.storage.host_bytes import python_blocks
from py_engine.storage.source import HostBytes

HASHES = ("sha256", "git_oid", "md5")
"""The hashes we can check, the best first."""

_VALIDATORS = ("etag", "modified")


@dataclass(frozen=True)
class Identity:
    """What is known of a file's content; "" is unknown. Hashes are lower-case hex.

    `git_oid` is git's SHA-1 of a blob; `etag` and `modified` are the server's headers of that
    meaning. `pieces` are the SHA-256 of every `piece_bytes` of the file, where they are known.
    """

    size: int
    sha256: str = ""
    git_oid: str = ""
    md5: str = ""
    etag: str = ""
    modified: str = ""
    piece_bytes: int = 0
    pieces: tuple[str, ...] = field(default=(), compare=False)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Identity:
        """Read what `to_dict` made; a field that is missing is unknown."""
        known = {f.name: data[f.name] for f in fields(Identity) if f.name in data}
        return Identity(**{**known, "pieces": tuple(known.get("pieces", ()))})

    def to_dict(self) -> dict[str, Any]:
        """Return the known fields as JSON types."""
        return {name: value for name, value in asdict(self).items() if value or name == "size"}

    @property
    def best_hash(self) -> str:
        """The name of the best known hash; "" for none."""
        return next((name for name in HASHES if getattr(self, name)), "")

    def may_equal(self, other: Identity) -> bool:
        """Whether nothing that both know differs; a hash decides over what servers say."""
        if self.size != other.size:
            return False
        for names in (HASHES, _VALIDATORS):
            both = [
                (getattr(self, name), getattr(other, name))
                for name in names
                if getattr(self, name) and getattr(other, name)
            ]
            if both:
                return all(mine == theirs for mine, theirs in both)
        return True

    def shares_evidence(self, other: Identity) -> bool:
        """Whether both know some hash or header by which they can be told apart."""
        names = HASHES + _VALIDATORS
        return any(getattr(self, name) and getattr(other, name) for name in names)


class ContentHash:
    """Hashes a file's content, given in order, with the hashes that `wanted` knows.

    With SHA-256 also where that `is_named`: where files are called by it.
    """

    def __init__(self, wanted: Identity, *, is_named: bool = False) -> None:
        self._wanted = wanted
        self._hashes: dict[str, Any] = {}
        if wanted.sha256 or is_named:
            self._hashes["sha256"] = hashlib.sha256()
        if wanted.git_oid:
            self._hashes["git_oid"] = hashlib.sha1(b"blob %d\0" % wanted.size)
        if wanted.md5 and not wanted.sha256:
            self._hashes["md5"] = hashlib.md5(usedforsecurity=False)

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to hash for."""
        return bool(self._hashes)

    async def update(self, data: HostBytes) -> None:
        """Add the next bytes; other tasks run in between."""
        await hash_blocks(data, *self._hashes.values())

    def digests(self) -> dict[str, str]:
        """Return all hashes by their names."""
        return {name: digest.hexdigest() for name, digest in self._hashes.items()}

    def mismatch(self) -> str:
        """Return the name of a known hash that the content does not have; "" where all is well."""
        for name, digest in self.digests().items():
            if getattr(self._wanted, name) not in ("", digest):
                return name
        return ""


async def sha256_of(data: HostBytes) -> str:
    """Return the SHA-256 of some bytes."""
    digest = hashlib.sha256()
    await hash_blocks(data, digest)
    return digest.hexdigest()


async def hash_blocks(data: HostBytes, *digests: Any) -> None:
    """Update hashes with bytes in host memory, a block at a time."""
    for block in python_blocks(data):
        for digest in digests:
            digest.update(block)
        await asyncio.sleep(0)
