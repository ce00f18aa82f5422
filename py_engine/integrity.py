"""Subresource Integrity (SRI) of a model's files: `sha256-`, `sha384-` or `sha512-` and base64.

Source: WebLLM's `integrity.ts`; https://www.w3.org/TR/SRI/.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from py_engine.errors import ConfigurationFieldError, IntegrityError
from py_engine.json_fields import JsonFields

DIGEST_BYTES = {"sha256": 32, "sha384": 48, "sha512": 64}

OnFailure = Literal["error", "warn"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelIntegrity:
    """The hashes that a model's files must have, as SRI; a file without one is not checked.

    `config` is that of mlc-chat-config.json, `tokenizer` has them by file name, and `files` (which
    WebLLM has not) by the path of any file, weights included. `model_lib` is kept for WebLLM: no
    compiled library is loaded here. With `onFailure` "warn" a mismatch is only logged.
    """

    config: str | None = None
    model_lib: str | None = None
    tokenizer: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    onFailure: OnFailure = "error"

    @staticmethod
    def from_fields(fields: JsonFields) -> ModelIntegrity:
        """Read `ModelRecord.integrity`. Raises ConfigurationFieldError, for a bad hash too."""
        on_failure = fields.string("onFailure", "error")
        if on_failure not in ("error", "warn"):
            raise fields.invalid("onFailure", '"error" or "warn"')
        return ModelIntegrity(
            config=_sri(fields, "config"),
            model_lib=_sri(fields, "model_lib"),
            tokenizer=_sris(fields.object("tokenizer")),
            files=_sris(fields.object("files")),
            onFailure="warn" if on_failure == "warn" else "error",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as WebLLM writes them, without empty ones."""
        return {name: value for name, value in vars(self).items() if value}

    def by_path(self, config_file: str) -> dict[str, str]:
        """Return the hash of every file that has one, by its path."""
        config = {} if self.config is None else {config_file: self.config}
        return {**config, **self.tokenizer, **self.files}


def is_valid_sri(sri: str) -> bool:
    """Whether this is an SRI hash of a known algorithm, with a digest of its length."""
    return _digest_of(sri) is not None


def sri_digest(sri: str) -> tuple[str, bytes]:
    """Return an SRI hash's algorithm and digest. Raises ConfigurationFieldError for a bad one."""
    found = _digest_of(sri)
    if found is None:
        raise ConfigurationFieldError(
            f"integrity: {sri!r} is no SRI hash. It must be sha256-, sha384- or sha512- followed "
            'by the base64 of the digest, such as the output of "openssl dgst -sha256 -binary FILE '
            '| openssl base64 -A".'
        )
    return found


async def verify_integrity(
    data: Any, expected_sri: str, url: str, on_failure: OnFailure = "error"
) -> None:
    """Compare `data` (bytes, or a JS ArrayBuffer) with an SRI hash; `url` is for messages.

    Errors: IntegrityError, or a logged warning where `on_failure` is "warn";
    ConfigurationFieldError for a bad hash.
    """
    algorithm, expected = sri_digest(expected_sri)
    check_digest(algorithm, await _digest(algorithm, data), expected, url, on_failure)


def check_digest(
    algorithm: str, actual: bytes, expected: bytes, url: str, on_failure: OnFailure
) -> None:
    """Compare two digests. Raises IntegrityError, or logs it where `on_failure` is "warn"."""
    if actual == expected:
        return
    error = IntegrityError(
        f"{url} is not the file of the model's record: its hash is {_text(algorithm, actual)}, but "
        f"must be {_text(algorithm, expected)}. Load the model again; if it stays so, the file on "
        "the server was changed: use one that you trust, or correct the record's integrity."
    )
    error.url = url
    error.expected, error.actual = _text(algorithm, expected), _text(algorithm, actual)
    if on_failure == "error":
        raise error
    logger.warning("%s", error)


def _digest_of(sri: str) -> tuple[str, bytes] | None:
    algorithm, dash, text = sri.partition("-")
    if not dash or algorithm not in DIGEST_BYTES:
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    is_canonical = base64.b64encode(digest).decode() == text  # as it would be compared elsewhere
    return (algorithm, digest) if is_canonical and len(digest) == DIGEST_BYTES[algorithm] else None


async def _digest(algorithm: str, data: Any) -> bytes:
    if isinstance(data, bytes):
        return hashlib.new(algorithm, data).digest()
    import js

    digest = await js.crypto.subtle.digest(algorithm.replace("sha", "SHA-"), data)
    return bytes(digest.to_bytes())


def _text(algorithm: str, digest: bytes) -> str:
    return f"{algorithm}-{base64.b64encode(digest).decode()}"


def _sri(fields: JsonFields, name: str) -> str | None:
    if name not in fields:
        return None
    sri = fields.string(name)
    if not is_valid_sri(sri):
        raise fields.invalid(name, 'an SRI hash: "sha256-", "sha384-" or "sha512-" and base64')
    return sri


def _sris(fields: JsonFields) -> dict[str, str]:
    found = {name: _sri(fields, name) for name in fields.data}
    return {name: sri for name, sri in found.items() if sri is not None}
