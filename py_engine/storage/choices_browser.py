"""Short texts that are worth keeping, but not worth an error, in the browser's Cache API."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

import js
from pyodide.ffi import JsException

logger = logging.getLogger(__name__)

_CACHE = "pywebllm/choices"
_ADDRESS = "https://pywebllm.invalid/"


class BrowserChoices:
    """Implements `models.form_choice.ChoiceStore`; what cannot be stored is kept in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}

    async def load(self, key: str) -> str | None:
        """Return the text of a key, if there is one."""
        if key not in self._kept:
            try:
                response = await (await _cache()).match(_ADDRESS + quote(key, safe=""))
                if response is None:
                    return None
                self._kept[key] = str(await response.text())
            except (JsException, AttributeError) as error:
                logger.debug("%s cannot be read: %s", key, error)
                return None
        return self._kept[key]

    async def save(self, key: str, text: str) -> None:
        """Keep a text."""
        self._kept[key] = text
        try:
            await (await _cache()).put(_ADDRESS + quote(key, safe=""), js.Response.new(text))
        except (JsException, AttributeError) as error:
            logger.debug("%s cannot be kept: %s", key, error)


async def _cache() -> Any:
    return await js.caches.open(_CACHE)
