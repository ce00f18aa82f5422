"""What each token stands for in bytes, derived from the `decoder` of a tokenizer.json.

Streaming needs the bytes of single tokens, which the wrapped library does not give. The rules here
are those of the Rust crate `tokenizers` (decoders ByteLevel, ByteFallback, Replace, Fuse, Strip,
Metaspace); any other decoder is refused rather than approximated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_level_alphabet() -> dict[str, int]:
    """Return the byte that each character of GPT-2's printable byte alphabet stands for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return alphabet


_BYTE_LEVEL = _byte_level_alphabet()


@dataclass(frozen=True)
class TokenDecoder:
    """How the text of a token becomes bytes.

    `drop_in_first` is removed wherever it occurs in the first token of a text; `strip_start` is a
    character and how many of it are cut from the start of the whole text.
    """

    byte_level: bool = False
    byte_fallback: bool = False
    replacements: tuple[tuple[str, str], ...] = ()
    drop_in_first: str | None = None
    strip_start: tuple[str, int] = ("", 0)

    def token_bytes(self, token: str, *, is_first: bool = False) -> bytes:
        """Return what `token` adds to the output, before `strip_start`."""
        if self.byte_level:
            try:
                return bytes([_BYTE_LEVEL[character] for character in token])
            except KeyError:  # an added token outside the alphabet is literal text
                return token.encode()
        if is_first and self.drop_in_first is not None:
            token = token.replace(self.drop_in_first, "")
        for old, new in self.replacements:
            token = token.replace(old, new)
        if self.byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        return token.encode()


@dataclass
class _Parts:
    byte_level: bool = False
    byte_fallback: bool = False
    fused: bool = False
    replacements: list[tuple[str, str]] = field(default_factory=list)
    drop_in_first: str | None = None
    strip_start: tuple[str, int] = ("", 0)


def token_decoder(decoder: Mapping[str, Any] | None) -> TokenDecoder | str:
    """Read the `decoder` of a tokenizer.json; returns the type that cannot be streamed if any."""
    if decoder is None:
        return "none"
    steps: Sequence[Mapping[str, Any]] = [decoder]
    if decoder.get("type") == "Sequence":
        steps = decoder.get("decoders", [])
    parts = _Parts()
    for step in steps:
        if not _add_step(parts, step):
            return str(step.get("type"))
    return TokenDecoder(
        parts.byte_level,
        parts.byte_fallback,
        tuple(parts.replacements),
        parts.drop_in_first,
        parts.strip_start,
    )


def _add_step(parts: _Parts, step: Mapping[str, Any]) -> bool:
    """Take one decoder into `parts`; False where it has no streaming form."""
    match step.get("type"):
        case "ByteLevel":
            parts.byte_level = True
        case "ByteFallback":
            parts.byte_fallback = True
        case "Fuse":
            parts.fused = True
        case "Replace" if "String" in step.get("pattern", {}):
            parts.replacements.append((step["pattern"]["String"], step["content"]))
        case "Strip" if parts.fused and not step.get("stop"):
            parts.strip_start = (step["content"], step["start"])
        case "Metaspace":
            space = step.get("replacement", "▁")
            parts.replacements.append((space, " "))
            scheme = "always" if step.get("add_prefix_space", True) else "never"
            if step.get("prepend_scheme", scheme) != "never":
                parts.drop_in_first = space
        case _:
            return False
    return True
