"""Stop strings in a stream of text."""

from __future__ import annotations

from collections.abc import Iterable


class StopStrings:
    """Passes text on up to the first stop string, and holds back what may become one.

    Of several stop strings the one that is complete first counts, so that the result does not
    depend on how the text is cut into pieces. `found` tells that it ended the text.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        self._strings = tuple(dict.fromkeys(filter(None, strings)))
        self._first_characters = frozenset(string[0] for string in self._strings)
        self._longest = max(map(len, self._strings), default=0)
        self._held = ""
        self.found = False

    def put(self, text: str) -> str:
        """Add text and return what can be shown of it and of what was held back."""
        if not self._strings or self.found:
            return "" if self.found else text
        text = self._held + text
        end = self._end_of_text(text)
        if end is not None:
            self.found = True
            self._held = ""
            return text[:end]
        shown = self._start_of_held(text)
        self._held = text[shown:]
        return text[:shown]

    def finish(self) -> str:
        """Return what was held back: the text is over and it was no stop string."""
        held, self._held = self._held, ""
        return held

    def _end_of_text(self, text: str) -> int | None:
        """Return where the stop string begins that is complete first (of two, the longer)."""
        ends = []
        for string in self._strings:
            start = text.find(string)
            if start >= 0:
                ends.append((start + len(string), start))
        return min(ends)[1] if ends else None

    def _start_of_held(self, text: str) -> int:
        """Return where the longest end of `text` begins that a stop string could begin with."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start] in self._first_characters:
                tail = text[start:]
                if any(string.startswith(tail) for string in self._strings):
                    return start
        return len(text)
