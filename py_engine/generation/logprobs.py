"""Log-probabilities in OpenAI's form, given out together with the text they belong to."""

from __future__ import annotations

from collections import deque
from typing import Any

from py_engine.models.base import Draw
from py_engine.tokenizer import Tokenizer


class LogprobLog:
    """Pairs the draws of one reply with its text.

    Text is held back while it may become a stop string or is half a character; its tokens'
    log-probabilities are held back with it, and those of a stop string are never shown.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._waiting: deque[tuple[int, dict[str, Any]]] = deque()
        self._made = 0  # characters of text that the tokens so far stand for
        self._shown = 0

    def put(self, draw: Draw, text: str) -> None:
        """Add a draw and the text that it completed."""
        if draw.logprob is not None:
            self._waiting.append((self._made, self._entry(draw)))
        self._made += len(text)

    def take(self, text: str, *, is_last: bool = False) -> list[dict[str, Any]]:
        """Return the entries of the tokens that begin in `text`, the next text shown.

        `is_last` adds those that completed no text at the end of the reply.
        """
        self._shown += len(text)
        taken = []
        while self._waiting:
            begin = self._waiting[0][0]
            if begin >= self._shown and not (is_last and begin == self._made == self._shown):
                break
            taken.append(self._waiting.popleft()[1])
        return taken

    def _entry(self, draw: Draw) -> dict[str, Any]:
        entry = self._token(draw.token_id, draw.logprob)
        entry["top_logprobs"] = [self._token(*likely) for likely in draw.top]
        return entry

    def _token(self, token_id: int, logprob: float | None) -> dict[str, Any]:
        data = self._tokenizer.token_bytes(token_id)
        return {"token": data.decode(errors="replace"), "bytes": list(data), "logprob": logprob}
