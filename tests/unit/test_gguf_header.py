"""Headers of GGUF files: what is read, what is refused, and that no damage does worse."""

from __future__ import annotations

import asyncio
import random
import struct
from typing import Any

import pytest

from py_engine.errors import (
    MissingFileError,
    ModelFileError,
    ModelFileFormatError,
    TruncatedFileError,
    UnknownQuantizationError,
)
from py_engine.weights import gguf
from py_engine.weights.gguf import GgufFile, read_gguf
from tests.support.gguf_file import FileTensor, Typed, gguf_bytes
from tests.support.memory_source import MemorySource

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "a.u8": Typed("u8", 255),
    "a.i8": Typed("i8", -128),
    "a.u16": Typed("u16", 65535),
    "a.i16": Typed("i16", -32768),
    "a.u32": 2**32 - 1,
    "a.i32": -(2**31),
    "a.u64": Typed("u64", 2**64 - 1),
    "a.i64": Typed("i64", -(2**63)),
    "a.f32": 0.5,
    "a.f64": Typed("f64", 0.1),
    "a.bool": True,
    "a.text": "Grüße, 日本",
    "a.numbers": Typed("i16", [1, -2, 3]),
    "a.flags": Typed("bool", [True, False]),
    "a.texts": ["", "one", "zwölf"],
    "a.empty": Typed("string", []),
    "a.nested": Typed("array", [["x", "y"], ["z"]]),
}
TENSORS = {
    "token_embd.weight": FileTensor((3, 64), "Q4_0", bytes(range(108))),
    "blk.0.attn_norm.weight": FileTensor((5,), "F32", struct.pack("<5f", *range(5))),
    "blk.0.attn_q.weight": FileTensor((2, 256), "Q6_K", bytes(420)),
}


def read(data: bytes | dict[str, bytes], path: str = "model.gguf") -> GgufFile:
    files = data if isinstance(data, dict) else {path: data}
    return asyncio.run(read_gguf(MemorySource(files), path))


def plain(value: Any) -> Any:
    if isinstance(value, Typed):
        return plain(value.value)
    return [plain(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_all_kinds_of_metadata_and_tensors_in_pieces_of_any_size(
    version: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "FIRST_PIECE_BYTES", piece)
    monkeypatch.setattr(gguf, "LARGEST_PIECE_BYTES", piece)
    data = gguf_bytes(METADATA, TENSORS, version=version)
    model = read(data)
    assert model.metadata == {key: plain(value) for key, value in METADATA.items()}
    assert model.files == {"model.gguf": len(data)}
    for name, tensor in TENSORS.items():
        record = model.tensors[name]
        assert (record.shape, record.dtype, record.file) == (
            tensor.shape,
            tensor.dtype,
            "model.gguf",
        )
        assert data[record.byte_offset : record.byte_offset + record.nbytes] == tensor.data
    assert list(model.tensors) == list(TENSORS)


def test_only_the_header_is_read() -> None:
    tensors = {"a": FileTensor((8 << 20,), "F32", bytes(32 << 20))}
    source = MemorySource({"model.gguf": gguf_bytes(METADATA, tensors)})
    ranges: list[tuple[int, int]] = []
    read_range = source.read_range

    async def watched(path: str, begin: int, end: int, on_bytes: Any = None) -> bytes:
        ranges.append((begin, end))
        return await read_range(path, begin, end, on_bytes)

    source.read_range = watched  # type: ignore[method-assign]
    asyncio.run(read_gguf(source, "model.gguf"))
    assert ranges == [(0, gguf.FIRST_PIECE_BYTES)]


def test_a_stated_alignment_moves_the_tensors() -> None:
    data = gguf_bytes({"general.alignment": 128, "general.architecture": "llama"}, TENSORS)
    for name, record in read(data).tensors.items():
        assert record.byte_offset % 128 == 0
        assert data[record.byte_offset :].startswith(TENSORS[name].data)


def test_norms_of_single_heads_are_one_vector() -> None:
    tensors = {"blk.0.attn_q_norm.weight": FileTensor((2, 3), "F32", bytes(24))}
    record = read(gguf_bytes(METADATA, tensors)).tensors["blk.0.attn_q_norm.weight"]
    assert (record.shape, record.nbytes) == ((6,), 24)


def test_factors_of_rope_come_with_the_metadata() -> None:
    factors = struct.pack("<4f", 1, 1.5, 4, 8)
    tensors = TENSORS | {"rope_freqs.weight": FileTensor((4,), "F32", factors)}
    assert read(gguf_bytes(METADATA, tensors)).rope_factors == {
        "rope_freqs.weight": (1.0, 1.5, 4.0, 8.0)
    }


def split(count: int = 3) -> dict[str, bytes]:
    """Return a model's parts, with one tensor in each."""
    parts = {}
    for number, (name, tensor) in enumerate(TENSORS.items()):
        metadata = {"split.no": Typed("u16", number), "split.count": Typed("u16", count)}
        metadata |= METADATA if number == 0 else {}
        parts[f"quants/m-{number + 1:05}-of-00003.gguf"] = gguf_bytes(metadata, {name: tensor})
    return parts


@pytest.mark.parametrize("named", [1, 3])
def test_parts_of_a_split_model_are_found_from_any_of_them(named: int) -> None:
    parts = split()
    model = read(parts, f"quants/m-{named:05}-of-00003.gguf")
    assert model.path == "quants/m-00001-of-00003.gguf"
    assert model.files == {path: len(data) for path, data in parts.items()}
    assert model.metadata["general.architecture"] == "llama"
    for path, (name, tensor) in zip(parts, TENSORS.items(), strict=True):
        record = model.tensors[name]
        assert record.file == path
        assert parts[path][record.byte_offset :].startswith(tensor.data)


def test_a_missing_part_is_named() -> None:
    parts = split()
    del parts["quants/m-00002-of-00003.gguf"]
    with pytest.raises(MissingFileError, match=r"m-00002-of-00003\.gguf is missing, a part"):
        read(parts, "quants/m-00001-of-00003.gguf")


def test_parts_that_do_not_belong_together_are_refused() -> None:
    parts = split()
    names = list(parts)
    parts[names[1]] = parts[names[2]]
    with pytest.raises(ModelFileFormatError, match="by its name it is part 1 of 3"):
        read(parts, names[0])
    with pytest.raises(ModelFileFormatError, match="llama-gguf-split --merge"):
        read({"renamed.gguf": split()[names[0]]}, "renamed.gguf")
    with pytest.raises(ModelFileFormatError, match="llama-gguf-split --merge"):
        read(split(count=2), names[0])


def test_a_tensor_in_two_parts_is_refused() -> None:
    parts = split()
    metadata = {"split.no": Typed("u16", 1), "split.count": Typed("u16", 3)}
    tensor = {"token_embd.weight": TENSORS["token_embd.weight"]}
    parts["quants/m-00002-of-00003.gguf"] = gguf_bytes(metadata, tensor)
    with pytest.raises(ModelFileFormatError, match="both have a tensor 'token_embd"):
        read(parts, "quants/m-00001-of-00003.gguf")


def test_types_without_kernels_are_refused_by_name() -> None:
    tensors = {"output.weight": FileTensor((1, 256), "IQ2_XS", bytes(74))}
    with pytest.raises(UnknownQuantizationError, match=r"output\.weight.* IQ2_XS.*Q4_K_M"):
        read(gguf_bytes(METADATA, tensors))


def with_type(number: int) -> bytes:
    data = gguf_bytes({}, {"t": FileTensor((32,), "F32", bytes(128))})
    at = data.index(b"t", 24) + 1 + 4 + 8
    return data[:at] + struct.pack("<I", number) + data[at + 4 :]


@pytest.mark.parametrize(
    ("data", "error", "named"),
    [
        (b"", ModelFileFormatError, "too few"),
        (b"<!doctype html>" + bytes(40), ModelFileFormatError, "no GGUF file: it begins with"),
        (gguf_bytes({}, version=1), ModelFileFormatError, "version 1 of the GGUF format"),
        (gguf_bytes({}, version=9), ModelFileFormatError, "version 9"),
        (gguf_bytes({"a": 1}, order=">"), ModelFileFormatError, "big-endian.*gguf-convert-endian"),
        (gguf_bytes({"general.alignment": 24}), ModelFileFormatError, "power of two"),
        (gguf_bytes({"general.alignment": True}), ModelFileFormatError, "power of two"),
        (gguf_bytes(METADATA, TENSORS)[:-100], TruncatedFileError, "ends at byte"),
        (with_type(7777), ModelFileFormatError, "unknown type 7777"),
        (with_type(14), ModelFileFormatError, "multiples of 256"),
    ],
)
def test_files_of_another_kind_are_refused_with_the_reason(
    data: bytes, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        read(data)


def header(n_tensors: int, n_values: int, rest: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_values) + rest


KEY = struct.pack("<Q1s", 1, b"k")
HUGE = 2**63 + 5


@pytest.mark.parametrize(
    "data",
    [
        header(HUGE, 0, bytes(64)),
        header(0, HUGE, bytes(64)),
        header(0, 1, struct.pack("<Q", HUGE) + bytes(64)),
        header(0, 1, KEY + struct.pack("<IQ", 8, HUGE) + bytes(64)),
        header(0, 1, KEY + struct.pack("<IIQ", 9, 8, HUGE) + bytes(64)),
        header(0, 1, KEY + struct.pack("<IIQ", 9, 12, HUGE) + bytes(64)),
        header(0, 1, KEY + struct.pack("<IIQ", 9, 9, HUGE) + bytes(64)),
        header(0, 1, KEY + struct.pack("<I", 9) + 100 * struct.pack("<IQ", 9, 1) + bytes(64)),
        header(0, 1, KEY + struct.pack("<I", 13) + bytes(64)),
        header(0, 2, 2 * (KEY + struct.pack("<II", 4, 7)) + bytes(64)),
        header(1, 0, KEY + struct.pack("<I", 10**6) + bytes(64)),
        header(1, 0, KEY + struct.pack("<I", 0) + bytes(64)),
        header(1, 0, KEY + struct.pack("<IQIQ", 1, 0, 0, 0) + bytes(64)),
        header(1, 0, KEY + struct.pack("<IQQIQ", 2, HUGE, HUGE, 0, 0) + bytes(64)),
        header(1, 0, KEY + struct.pack("<IQIQ", 1, 1, 0, 1) + bytes(64)),
        header(1, 0, KEY + struct.pack("<IQIQ", 1, 1, 0, 2**64 - 32) + bytes(64)),
        header(2, 0, 2 * (KEY + struct.pack("<IQIQ", 1, 1, 0, 0)) + bytes(64)),
    ],
)
def test_counts_lengths_and_places_are_checked_before_use(data: bytes) -> None:
    with pytest.raises(ModelFileError, match=r"model\.gguf"):
        read(data)


def test_tensors_that_overlap_are_refused() -> None:
    entries = KEY + struct.pack("<IQIQ", 1, 16, 0, 0)
    entries += struct.pack("<Q1s", 1, b"l") + struct.pack("<IQIQ", 1, 16, 0, 32)
    with pytest.raises(ModelFileFormatError, match="'l' overlaps 'k'"):
        read(header(2, 0, entries) + bytes(256))


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_end_in_an_error_or_in_a_correct_load(seed: int) -> None:
    """50 mutations and 50 truncations each."""
    chance = random.Random(seed)
    whole = gguf_bytes(METADATA, TENSORS)
    end = min(record.byte_offset for record in read(whole).tensors.values())
    for _ in range(50):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 4))):
            damaged[chance.randrange(end)] = chance.choice((0, 1, 127, 255, chance.randrange(256)))
        for data in (bytes(damaged), whole[: chance.randrange(len(whole) - 100)]):
            try:
                model = read(data)
            except (ModelFileError, UnknownQuantizationError):
                continue
            for record in model.tensors.values():
                assert record.byte_offset + record.nbytes <= len(data)
