"""Text to token ids and back: one class over the Rust crate `tokenizers`, in both worlds.

The crate comes as PyPI's `tokenizers` in CPython and as npm's `@mlc-ai/web-tokenizers` in the
browser. Both give the same ids; what the npm package lacks (skipping special tokens, single tokens)
is done here from the tokenizer.json itself, for both.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from py_engine.errors import (
    ModelFileFormatError,
    NetworkError,
    UnsupportedTokenizerFilesError,
)
from py_engine.tokenizer.decoding import TokenDecoder
from py_engine.tokenizer.detokenizer import Detokenizer
from py_engine.tokenizer.files import TokenizerFile, parse_tokenizer_json

if TYPE_CHECKING:
    from py_engine.chat_config import ChatConfig
    from py_engine.storage.source import ModelSource

TOKENIZER_FILE = "tokenizer.json"

# A space at the beginning of a token: of sentencepiece's kind, and in GPT-2's alphabet.
_SPACES = ("▁", "Ġ")
# Characters after which a text is encoded to see what it is in the middle of a text.
_ANCHORS = ("\n", "0", "a")

__all__ = [
    "TOKENIZER_FILE",
    "Detokenizer",
    "Tokenizer",
    "TokenizerBackend",
    "load_tokenizer",
    "tokenizer_from_json",
    "well_formed",
]


class TokenizerBackend(Protocol):
    """The part of the wrapped library that both packages have."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens in it are parsed, none are added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens included."""
        ...

    def destroy(self) -> None:
        """Free what no garbage collector frees."""
        ...


class Tokenizer:
    """The tokenizer of one model.

    `special_ids` are those that `decode` leaves out by default, and some of `added_ids`, whose
    tokens are found in a text before anything else. `template` has the special tokens
    that the model expects around a text, which `encode` does not add.
    """

    def __init__(self, file: TokenizerFile, backend: TokenizerBackend) -> None:
        self._tokens = file.tokens
        self._ids = {token: index for index, token in enumerate(file.tokens) if token is not None}
        self._decoder = file.decoder
        self._backend = backend
        self.added_ids = file.added_ids
        self.special_ids = file.special_ids
        self.template = file.template

    @property
    def vocab_size(self) -> int:
        """One more than the largest id; the model's own `vocab_size` may be padded beyond it."""
        return len(self._tokens)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`. Special tokens in the text are parsed, none are added.

        A lone surrogate, which no tokenizer can encode, counts as U+FFFD.
        """
        return self._backend.encode(well_formed(text)) if text else []

    def encode_parts(self, parts: Sequence[str]) -> list[int]:
        """Return the ids of a text that is cut into parts: no token reaches over a cut.

        The tokenizers that put a space before a text put none at a cut, so the ids decode to the
        text.
        """
        ids = self.encode(parts[0])
        for part in parts[1:]:
            ids += self._encode_after_cut(part)
        return ids

    def _encode_after_cut(self, text: str) -> list[int]:
        for anchor in _ANCHORS if self._puts_space_before else ():
            before, ids = self.encode(anchor), self.encode(anchor + text)
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return self.encode(text)

    @cached_property
    def _puts_space_before(self) -> bool:
        first = self.token(self.encode("a")[0])
        return first is not None and first.startswith(_SPACES)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of `ids`; ids that are not in the vocabulary add nothing."""
        size, skip = len(self._tokens), self.special_ids if skip_special_tokens else frozenset()
        kept = [index for index in ids if 0 <= index < size and index not in skip]
        return self._backend.decode(kept) if kept else ""

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token as it stands in the vocabulary, or None."""
        return self._ids.get(token)

    def token(self, token_id: int) -> str | None:
        """Return a token as it stands in the vocabulary, or None when there is none of that id."""
        return self._tokens[token_id] if 0 <= token_id < len(self._tokens) else None

    @property
    def decoder(self) -> TokenDecoder:
        """How tokens become bytes. Errors: UnsupportedTokenizerFilesError as `token_bytes`."""
        return self._streaming_decoder()

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for inside a text; none for an unknown id.

        Errors: UnsupportedTokenizerFilesError for decoders whose tokens have no bytes of their own.
        """
        token = self.token(token_id)
        return b"" if token is None else self._streaming_decoder().token_bytes(token)

    def detokenizer(
        self, skip_special_tokens: bool = True, keep: frozenset[int] = frozenset()
    ) -> Detokenizer:
        """Return a new streaming detokenizer; the special tokens `keep` show in its text.

        Errors: UnsupportedTokenizerFilesError.
        """
        skip = self.special_ids - keep if skip_special_tokens else frozenset()
        return Detokenizer(self._streaming_decoder(), self.token, skip)

    def destroy(self) -> None:
        """Free the wrapped library's memory; the tokenizer cannot be used afterwards."""
        self._backend.destroy()

    def _streaming_decoder(self) -> TokenDecoder:
        if isinstance(self._decoder, str):
            raise UnsupportedTokenizerFilesError(
                f"{TOKENIZER_FILE}: decoder '{self._decoder}' cannot be streamed; use a model "
                "whose decoder is ByteLevel, Metaspace, or a Sequence with ByteFallback."
            )
        return self._decoder


def well_formed(text: str) -> str:
    """Return `text` with each lone surrogate replaced by U+FFFD, and pairs joined."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


async def load_tokenizer(source: ModelSource, config: ChatConfig) -> Tokenizer:
    """Fetch and open the tokenizer of a model.

    Errors: UnsupportedTokenizerFilesError when the model lists no tokenizer.json, MissingFileError
    and NetworkError from the source, ModelFileFormatError.
    """
    listed = config.tokenizer_files
    if listed and TOKENIZER_FILE not in listed:
        raise UnsupportedTokenizerFilesError(
            f"{config.file}: tokenizer_files lists {', '.join(listed)}, but only {TOKENIZER_FILE} "
            "can be read. Make one with transformers, AutoTokenizer.from_pretrained(model)"
            f".save_pretrained(folder), put it beside {config.file} and list it."
        )
    text = await source.read_text(TOKENIZER_FILE)
    await asyncio.sleep(0)  # a large vocabulary takes long: weights that have come need not wait
    return await tokenizer_from_json(text)


async def tokenizer_from_json(text: str, source: str = TOKENIZER_FILE) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json's text.

    Errors: ModelFileFormatError, NetworkError where the library cannot be fetched.
    """
    file = parse_tokenizer_json(text, source)
    await asyncio.sleep(0)  # as above
    if sys.platform == "emscripten":
        from py_engine.tokenizer.backend_browser import open_backend
    else:
        from py_engine.tokenizer.backend_native import open_backend
    try:
        return Tokenizer(file, await open_backend(file.text))
    except NetworkError:
        raise
    except Exception as error:  # the library's own exceptions have no common class
        raise ModelFileFormatError(
            f"{source}: the tokenizers library cannot read it ({error}). It may need a newer "
            "version of the library, or the file is damaged."
        ) from error
