"""WebLLM's levels of logging, as Python's."""

from __future__ import annotations

import logging

from py_engine.errors import ConfigValueError

LOG_LEVELS = {
    "TRACE": 5,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "SILENT": logging.CRITICAL + 1,
}


def log_from(level: str) -> None:
    """Let the package log from a level on. Raises ConfigValueError for an unknown one."""
    if level not in LOG_LEVELS:
        raise ConfigValueError(
            f"log_level is {level!r}, but must be one of {', '.join(LOG_LEVELS)}."
        )
    logging.getLogger("py_engine").setLevel(LOG_LEVELS[level])
