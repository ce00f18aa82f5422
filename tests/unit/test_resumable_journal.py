"""The journal's format: WebLLM's layout, and what damage does to it."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from py_engine.resumable.crc32c import crc32c
from py_engine.resumable.journal import Record, RecordType, Scan, encoded, scan

RECORDS = (
    Record(RecordType.SESSION_BEGIN, 1, 1_700_000_000_000, {"sessionId": "s", "modelId": "m"}),
    Record(RecordType.PROMPT_TOKENS, 2, 1_700_000_000_001, {"tokenIds": [1, 2]}),
    Record(RecordType.GENERATION_CONFIG, 3, 1_700_000_000_001, {"config": {}}),
    Record(RecordType.GENERATED_TOKEN, 4, 1_700_000_000_002, {"tokenId": 7, "deltas": "é\ud83d"}),
    Record(RecordType.GENERATED_TOKEN, 5, 1_700_000_000_003, {"tokenId": 0, "textDelta": "🦊"}),
    Record(RecordType.GENERATION_FINISHED, 6, 1_700_000_000_004, {"emittedTokens": 2}),
)  # fmt: skip
PARTS = tuple(map(encoded, RECORDS))
JOURNAL = b"".join(PARTS)


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # this and the next: RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_crc32c(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


def test_layout_is_webllms() -> None:
    payload = b'{"tokenIds":[1,2]}'
    header = struct.pack("<I", 0x574C4C4A) + struct.pack("<H", 2) + struct.pack("<Q", 2)
    header += struct.pack("<Q", 1_700_000_000_001) + struct.pack("<I", len(payload))
    assert PARTS[1] == header + struct.pack("<I", crc32c(payload)) + payload


def test_whole_journal() -> None:
    assert scan(JOURNAL) == Scan(RECORDS, len(JOURNAL), None)
    assert scan(b"") == Scan((), 0, None)


def test_torn_tail_at_every_byte() -> None:
    ends = [sum(map(len, PARTS[:n])) for n in range(len(PARTS) + 1)]
    for size in range(len(JOURNAL)):
        found = scan(JOURNAL[:size])
        whole = max(n for n, end in enumerate(ends) if end <= size)
        damage = None if size in ends else "partial_record"
        assert found == Scan(RECORDS[:whole], ends[whole], damage)


def test_damage_ends_the_journal_there() -> None:
    """Every bit of every header, and one of each byte after it."""
    for index, part in enumerate(PARTS):
        begin = sum(map(len, PARTS[:index]))
        for bit in (*range(8 * 30), *range(8 * 30, 8 * len(part), 9)):
            if 14 <= bit // 8 < 22:  # the time, on which nothing depends
                continue
            damaged = bytearray(JOURNAL)
            damaged[begin + bit // 8] ^= 1 << bit % 8
            found = scan(bytes(damaged))
            same_in_effect = bit // 8 == 4 and part[4] ^ 1 << bit % 8 == 3
            if same_in_effect:  # the prompt's record became that of a reply's prefix
                continue
            assert found.records == RECORDS[:index], (index, bit)
            assert found.n_bytes == begin
            assert found.damage is not None


@pytest.mark.parametrize(
    ("payload", "damage"),
    [
        (b"[1]", "invalid_payload"),
        (b"{", "invalid_payload"),
        (b"\xff", "invalid_payload"),
        (b'{"tokenId": ' + b"[" * 5000 + b"]" * 5000 + b"}", "invalid_payload"),
        (b'{"textDelta": "no token"}', "invalid_payload"),
        (b'{"tokenId": 1}', None),
    ],
)
def test_payloads(payload: bytes, damage: str | None) -> None:
    header = struct.pack("<IHQQII", 0x574C4C4A, 5, 1, 0, len(payload), crc32c(payload))
    assert scan(header + payload).damage == damage


@pytest.mark.parametrize(
    ("field", "value", "damage"),
    [
        (0, 0x574C4C4B, "bad_magic"),
        (1, 10, "invalid_payload"),
        (1, 0, "invalid_payload"),
        (2, 2, "invalid_payload"),
        (5, 1, "crc_mismatch"),
    ],
)
def test_headers(field: int, value: int, damage: str) -> None:
    header: list[Any] = [0x574C4C4A, 5, 1, 0, 2, crc32c(b"{}")]
    header[field] = value
    assert scan(struct.pack("<IHQQII", *header) + b"{}").damage == damage


def test_a_record_twice_is_out_of_order() -> None:
    assert scan(PARTS[0] * 2) == Scan(RECORDS[:1], len(PARTS[0]), "invalid_payload")
