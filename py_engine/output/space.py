"""White space that may turn out to be the last of a text."""

from __future__ import annotations


class TrailingSpace:
    """Holds white space back until text follows it; `held` is what is held now."""

    def __init__(self) -> None:
        self.held = ""

    def put(self, text: str) -> str:
        """Add text and return what can go out."""
        text = self.held + text
        kept = text.rstrip()
        self.held = text[len(kept) :]
        return kept
