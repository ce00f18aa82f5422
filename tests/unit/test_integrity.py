"""SRI hashes of files: C15 of WebLLM's conformance, and what a mismatch does."""

from __future__ import annotations

import asyncio
import logging

import pytest

from py_engine.errors import ConfigurationFieldError, IntegrityError
from py_engine.integrity import ModelIntegrity, is_valid_sri, sri_digest, verify_integrity
from py_engine.json_fields import JsonFields

URL = "https://x.org/tokenizer.json"

# NIST's vectors of the empty message and of "abc".
VECTORS = [
    (b"", "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
    (b"", "sha384-OLBgp1GsljhM2TJ+sbHjaiH9txEUvgdDTAzHv2P24donTt6/529l+9Ua0vFImLlb"),
    (
        b"",
        "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
    ),
    (b"abc", "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="),
    (b"abc", "sha384-ywB1P0WjXou1oD1pmsZQBycsMqsO3tFjGotgWkP/W+2AhgcroefMI1i67KE0yCWn"),
    (
        b"abc",
        "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==",
    ),
]
EMPTY, ABC = VECTORS[0][1], VECTORS[3][1]


@pytest.mark.parametrize(("data", "sri"), VECTORS)
def test_files_with_their_hash_pass(data: bytes, sri: str) -> None:
    assert is_valid_sri(sri)
    asyncio.run(verify_integrity(data, sri, URL))


@pytest.mark.parametrize(
    "sri",
    [
        "",
        "sha256-",
        "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
        "md5-1B2M2Y8AsgTpgAmY7PhCfg==",
        EMPTY.removeprefix("sha256-"),
        EMPTY.replace("-", ":"),
        f"{EMPTY}=",
        EMPTY.removesuffix("="),
        EMPTY.replace("=", "!"),
        EMPTY.replace("sha256", "sha384"),
        "sha256-dG9vIHNob3J0",
        EMPTY.replace("FU=", "FV="),  # bits that no byte has
        f" {EMPTY}",
    ],
)
def test_what_is_no_hash(sri: str) -> None:
    assert not is_valid_sri(sri)
    with pytest.raises(ConfigurationFieldError, match=r"is no SRI hash\. It must be sha256-"):
        sri_digest(sri)
    with pytest.raises(ConfigurationFieldError):
        asyncio.run(verify_integrity(b"", sri, URL))


def test_a_mismatch_names_the_file_and_both_hashes() -> None:
    with pytest.raises(IntegrityError, match=r"^https://x\.org/tokenizer\.json is not") as caught:
        asyncio.run(verify_integrity(b"abc", EMPTY, URL))
    error = caught.value
    assert (error.url, error.expected, error.actual) == (URL, EMPTY, ABC)
    assert EMPTY in str(error)
    assert ABC in str(error)


def test_a_mismatch_may_be_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "py_engine.integrity"):
        asyncio.run(verify_integrity(b"abc", EMPTY, URL, "warn"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert URL in caplog.text


def test_a_record_has_hashes_by_path() -> None:
    fields = JsonFields(
        {
            "config": EMPTY,
            "model_lib": ABC,
            "tokenizer": {"tokenizer.json": ABC},
            "files": {"params_shard_0.bin": ABC},
        },
        "integrity",
    )
    integrity = ModelIntegrity.from_fields(fields)
    assert integrity.onFailure == "error"
    assert integrity.by_path("mlc-chat-config.json") == {
        "mlc-chat-config.json": EMPTY,
        "tokenizer.json": ABC,
        "params_shard_0.bin": ABC,
    }
    assert integrity.to_dict() == {**fields.data, "onFailure": "error"}
    assert ModelIntegrity().by_path("c") == {}
