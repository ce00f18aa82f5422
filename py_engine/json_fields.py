"""Typed access to the fields of a JSON object, with errors that name where a value came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from py_engine.errors import ConfigurationFieldError, MLCError, ModelFileFormatError
from py_engine.json_values import shown as shown

T = TypeVar("T")

ErrorClass = type[MLCError]


class JsonFields:
    """The fields of one JSON object.

    `source` is the file (or argument) that the object came from and starts every message;
    `sources` gives another one for single fields, as after a merge. A field that is JSON `null`
    counts as absent. Each reader takes a default; without one the field is required.
    Errors: `error` (ModelFileFormatError for files, ConfigurationFieldError for fields in
    `sources`) naming source, field, value and what is wanted.
    """

    def __init__(
        self,
        data: Any,
        source: str,
        *,
        path: str = "",
        sources: Mapping[str, str] | None = None,
        error: ErrorClass = ModelFileFormatError,
    ) -> None:
        self.source = source
        self.path = path
        self._sources = sources or {}
        self._error = error
        if not isinstance(data, Mapping):
            where = f"{source}: {path}" if path else source
            raise error(f"{where} is {shown(data)}, but must be a JSON object.")
        self.data: Mapping[str, Any] = data

    def __contains__(self, name: str) -> bool:
        return self.data.get(name) is not None

    def value(self, name: str) -> Any:
        """Return the field as it is, or None."""
        return self.data.get(name)

    def where(self, name: str) -> str:
        """Return "source: field", as messages start."""
        path = f"{self.path}.{name}" if self.path else name
        return f"{self._sources.get(name, self.source)}: {path}"

    def invalid(self, name: str, wanted: str) -> MLCError:
        """Return the error for a field whose value is not `wanted`."""
        error = ConfigurationFieldError if name in self._sources else self._error
        if name not in self:
            return error(f"{self.where(name)} is missing; it must be {wanted}.")
        return error(f"{self.where(name)} is {shown(self.data[name])}, but must be {wanted}.")

    def integer(
        self,
        name: str,
        default: int | None = None,
        *,
        minimum: int = -(2**53),
        maximum: int = 2**53,
    ) -> int:
        """Return an integer from `minimum` to `maximum` (both included)."""
        value = self.data.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.invalid(name, _described("an integer", minimum, maximum))
        if not minimum <= value <= maximum:
            raise self.invalid(name, _described("an integer", minimum, maximum))
        return value

    def number(
        self,
        name: str,
        default: float | None = None,
        *,
        minimum: float = float("-inf"),
        maximum: float = float("inf"),
        above: float = float("-inf"),
    ) -> float:
        """Return a finite number from `minimum` to `maximum`, and greater than `above`."""
        value = self.data.get(name)
        if value is None and default is not None:
            return default
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not _is_finite(value)
            or not minimum <= value <= maximum
            or not value > above
        ):
            bounds = _described("a number", minimum, maximum)
            raise self.invalid(name, f"{bounds} above {above}" if above > -(2**53) else bounds)
        return float(value)

    def boolean(self, name: str, default: bool | None = None) -> bool:
        """Return true or false."""
        return self._typed(name, default, bool, "true or false")

    def string(self, name: str, default: str | None = None) -> str:
        """Return a string."""
        return self._typed(name, default, str, "a string")

    def strings(self, name: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """Return an array of strings."""
        return self._array(name, default, "an array of strings", _are_strings)

    def integers(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Return an array of integers that are not negative."""
        return self._array(name, default, "an array of integers from 0", _are_naturals)

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return an array of finite numbers; it is required."""
        return self._array(name, None, "an array of numbers", _are_numbers)

    def objects(self, name: str) -> list[JsonFields]:
        """Return an array of objects; it is required."""
        value = self.data.get(name)
        if not isinstance(value, list | tuple):
            raise self.invalid(name, "an array of objects")
        return [self._child(item, f"{name}[{index}]") for index, item in enumerate(value)]

    def object(self, name: str) -> JsonFields:
        """Return an object; an empty one when the field is absent."""
        value = self.data.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise self.invalid(name, "a JSON object")
        return self._child(value or {}, name)

    def _child(self, data: Any, name: str) -> JsonFields:
        source = self._sources.get(name, self.source)
        path = f"{self.path}.{name}" if self.path else name
        error = ConfigurationFieldError if name in self._sources else self._error
        return JsonFields(data, source, path=path, error=error)

    def _typed(self, name: str, default: T | None, kind: type[T], wanted: str) -> T:
        value = self.data.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, kind):
            raise self.invalid(name, wanted)
        return value

    def _array(
        self,
        name: str,
        default: tuple[T, ...] | None,
        wanted: str,
        accepts: Callable[[Sequence[Any]], bool],
    ) -> tuple[T, ...]:
        value = self.data.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, list | tuple) or not accepts(value):
            raise self.invalid(name, wanted)
        return tuple(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer past all floats
        return False


# Vocabularies are arrays of hundreds of thousands, so no Python code runs for each of their items.
def _are_strings(values: Sequence[Any]) -> bool:
    return _are_of(values, {str})


def _are_naturals(values: Sequence[Any]) -> bool:
    return _are_of(values, {int}) and min(values, default=0) >= 0


def _are_numbers(values: Sequence[Any]) -> bool:
    return _are_of(values, {int, float}) and all(map(_is_finite, values))


def _are_of(values: Sequence[Any], kinds: set[type]) -> bool:
    return set(map(type, values)) <= kinds


def _described(kind: str, minimum: float, maximum: float) -> str:
    lower, upper = minimum > -(2**53), maximum < 2**53
    if lower and upper:
        return f"{kind} from {minimum} to {maximum}"
    if lower:
        return f"{kind} of at least {minimum}"
    return f"{kind} of at most {maximum}" if upper else kind
