"""Token ids to text, one at a time."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from py_engine.tokenizer.decoding import TokenDecoder

_EACH_BYTE = "py_engine.replace_each_byte"


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error(_EACH_BYTE, _replace_each_byte)


class Detokenizer:
    """Turns the ids of one text into its characters as they become complete.

    The pieces together equal `Tokenizer.decode` of all ids, and no piece holds half a character.
    Bytes that are not UTF-8 become U+FFFD as in the Rust crate: one for each maximal part of a
    sequence with byte-level tokens, one for each byte with byte-fallback tokens (where the crate
    also gives up the valid characters of a run of byte tokens that has an invalid one; here they
    are out by then, and stay).
    """

    def __init__(
        self, decoder: TokenDecoder, token: Callable[[int], str | None], skip: frozenset[int]
    ) -> None:
        self._decoder = decoder
        self._token = token
        self._skip = skip
        errors = _EACH_BYTE if decoder.byte_fallback else "replace"
        self._decode = codecs.getincrementaldecoder("utf-8")(errors).decode
        self._strip, self._strip_left = decoder.strip_start
        self._is_first = True

    def put(self, token_id: int) -> str:
        """Add one id and return the text that became complete, often one token's, maybe none."""
        if token_id in self._skip:
            return ""
        token = self._token(token_id)
        if token is None:
            return ""
        data = self._decoder.token_bytes(token, is_first=self._is_first)
        self._is_first = False
        return self._stripped(self._decode(data))

    def finish(self) -> str:
        """Return what is left: U+FFFD where the ids end inside a character, else nothing."""
        return self._stripped(self._decode(b"", True))

    def _stripped(self, text: str) -> str:
        while self._strip_left and text:
            if not text.startswith(self._strip):
                self._strip_left = 0
                break
            text = text[len(self._strip) :]
            self._strip_left -= 1
        return text
