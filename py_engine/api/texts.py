"""OpenAI's four forms of `prompt` and `input`: a text, texts, token ids, lists of token ids."""

from __future__ import annotations

from typing import Any

from py_engine.api.numbers import whole
from py_engine.json_fields import ErrorClass, JsonFields
from py_engine.json_values import shown

TextOrIds = str | tuple[int, ...]

_WANTED = "a string, a list of strings, a list of token ids or a list of such lists"


def texts_or_ids(fields: JsonFields, name: str, empty: ErrorClass) -> tuple[TextOrIds, ...]:
    """Return a field as its texts or token ids, at least one.

    Errors: `empty` for an empty text or list anywhere, ConfigValueError for anything else.
    """
    value = fields.value(name)
    if not isinstance(value, str | list):
        raise fields.invalid(name, _WANTED)
    if not isinstance(value, list) or (value and whole(value[0]) is not None):
        value = [value]
        paths = [fields.where(name)]
    else:
        paths = [f"{fields.where(name)}[{index}]" for index in range(len(value))]
    if not value:
        raise _empty(fields.where(name), value, empty)
    if len({type(each) for each in value}) > 1:
        raise fields.invalid(name, _WANTED)
    return tuple(
        _text_or_ids(fields, name, each, path, empty)
        for each, path in zip(value, paths, strict=True)
    )


def _text_or_ids(
    fields: JsonFields, name: str, value: Any, path: str, empty: ErrorClass
) -> TextOrIds:
    if not isinstance(value, str | list):
        raise fields.invalid(name, _WANTED)
    if not value:
        raise _empty(path, value, empty)
    if isinstance(value, str):
        return value
    ids = [whole(item) for item in value]
    token_ids = tuple(each for each in ids if each is not None and each >= 0)
    if len(token_ids) < len(value):
        raise fields.invalid(name, _WANTED)
    return token_ids


def _empty(path: str, value: Any, error: ErrorClass) -> Exception:
    return error(f"{path} is {shown(value)}, but must not be empty. Give text or token ids.")
