"""The journal of one generation: records, one after another, of which each is whole or not there.

The layout is that of WebLLM 0.2.86. A record is a little-endian header of 30 bytes (magic u32
"WLLJ", type u16, number u64, time u64 in ms, payload's length u32, payload's CRC-32C u32) and its
payload, a JSON object. Records are numbered from 1. What follows the last sound record is
what a write that was cut off left there, or damage, and counts as absent.

Payloads are WebLLM's, too. Ours are, in `GENERATION_CONFIG`, `config.pywebllm` (see `state.py`),
and in `GENERATED_TOKEN` and `GENERATION_FINISHED` `deltas`: what beside content the message got.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Any

from py_engine.json_values import MAX_DEPTH, is_too_deep
from py_engine.resumable.crc32c import crc32c

_MAX_DEPTH = MAX_DEPTH + 8  # of a request, inside of a payload
_MAGIC = 0x574C4C4A
_HEADER = Struct("<IHQQII")


class RecordType(IntEnum):
    """What a record tells."""

    SESSION_BEGIN = 1
    PROMPT_TOKENS = 2
    ASSISTANT_PREFIX_TOKENS = 3
    GENERATION_CONFIG = 4
    GENERATED_TOKEN = 5
    CHECKPOINT_COMMIT = 6
    GENERATION_FINISHED = 7
    GENERATION_ABORTED = 8
    ENGINE_ERROR = 9


# What the payload of each type has at least. The checksum is not of the header, so that a damaged
# type shows here.
_FIELDS = {
    RecordType.SESSION_BEGIN: "sessionId",
    RecordType.PROMPT_TOKENS: "tokenIds",
    RecordType.ASSISTANT_PREFIX_TOKENS: "tokenIds",
    RecordType.GENERATION_CONFIG: "config",
    RecordType.GENERATED_TOKEN: "tokenId",
    RecordType.CHECKPOINT_COMMIT: "checkpointId",
    RecordType.GENERATION_FINISHED: "emittedTokens",
    RecordType.GENERATION_ABORTED: "reason",
    RecordType.ENGINE_ERROR: "message",
}


@dataclass(frozen=True)
class Record:
    """One record; `created_at_ms` is in milliseconds since 1970."""

    type: RecordType
    number: int
    created_at_ms: int
    payload: dict[str, Any]


@dataclass(frozen=True)
class Scan:
    """The sound records at the beginning of a journal, and the bytes that they take.

    `damage` says what the next bytes are instead of a record, in WebLLM's words; None at the end.
    """

    records: tuple[Record, ...]
    n_bytes: int
    damage: str | None


def encoded(record: Record) -> bytes:
    """Return a record's bytes."""
    payload = json.dumps(record.payload, separators=(",", ":")).encode()
    header = _HEADER.pack(
        _MAGIC,
        record.type,
        record.number,
        record.created_at_ms,
        len(payload),
        crc32c(payload),
    )
    return header + payload


def scan(data: bytes) -> Scan:
    """Return the records of a journal up to the first that is not sound."""
    records: list[Record] = []
    at = 0
    while at < len(data):
        found = _record(data, at, len(records) + 1)
        if isinstance(found, str):
            return Scan(tuple(records), at, found)
        record, at = found
        records.append(record)
    return Scan(tuple(records), at, None)


def _record(data: bytes, at: int, number: int) -> tuple[Record, int] | str:
    """Return the record at `at` and where it ends, or what is wrong there."""
    begin = at + _HEADER.size
    if begin > len(data):
        return "partial_record"
    magic, kind, found_number, created_at_ms, size, checksum = _HEADER.unpack_from(data, at)
    if magic != _MAGIC:
        return "bad_magic"
    payload = data[begin : begin + size]
    if len(payload) < size:
        return "partial_record"
    if crc32c(payload) != checksum:
        return "crc_mismatch"
    try:
        text = payload.decode()
        if is_too_deep(text, _MAX_DEPTH):
            return "invalid_payload"
        values = json.loads(text)
        record = Record(RecordType(kind), found_number, created_at_ms, values)
    except ValueError:
        return "invalid_payload"
    if not isinstance(values, dict) or _FIELDS[record.type] not in values or found_number != number:
        return "invalid_payload"
    return record, begin + size
