"""JSON values: how an error message shows one, and plain copies that JSON can carry.

Runs on CPython, Pyodide and MicroPython.
"""

from py_engine.errors import ConfigValueError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Far deeper than requests are, and far from where an interpreter's stack ends.
MAX_DEPTH = 100

_SHOWN_LENGTH = 60


def shown(value: "Any") -> str:
    """Return `value` as an error message shows it: JSON-like and short."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out thousands of digits
        text = "an integer of thousands of digits"
    return _shortened(text)


def jsonable(value: "Any", path: str) -> "Any":
    """Return a plain copy of `value` that JSON can carry; `path` names it in errors.

    Objects with `keys()` become dicts, tuples lists, integer keys strings. Checked here because a
    MicroPython script cannot catch what JavaScript throws.
    Errors: ConfigValueError naming the first part that JSON cannot carry, or that is nested deeper
    than MAX_DEPTH.
    """
    try:
        return _copy(value, path, MAX_DEPTH)
    except RuntimeError as error:  # MicroPython's stack is smaller
        raise _too_deep(path) from error


def is_too_deep(text: str, max_depth: int = MAX_DEPTH) -> bool:
    """Return whether JSON text is nested deeper than that.

    Ask before `json.loads` reads a stranger's text: in Pyodide deep nesting ends the interpreter,
    where CPython raises RecursionError.
    """
    if text.count("[") + text.count("{") <= max_depth:
        return False
    parts = text.replace("\\\\", "").replace('\\"', "").split('"')  # every second one is a string
    depth = 0
    for index in range(0, len(parts), 2):
        for character in parts[index]:
            if character in "[{":
                depth += 1
                if depth > max_depth:
                    return True
            elif character in "]}":
                depth -= 1
    return False


def _copy(value: "Any", path: str, depth: int) -> "Any":
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ConfigValueError(f"{_shortened(path)} is {value}, but must be a finite number.")
        return value
    if depth == 0:
        raise _too_deep(path)
    if isinstance(value, (list, tuple)):
        return [_copy(item, f"{path}[{index}]", depth - 1) for index, item in enumerate(value)]
    if hasattr(type(value), "keys"):
        names = {key: _key(key, path) for key in value.keys()}
        return {name: _copy(value[key], f"{path}.{name}", depth - 1) for key, name in names.items()}
    raise ConfigValueError(
        f"{_shortened(path)} is of type {type(value).__name__}, which JSON cannot carry; "
        "use None, booleans, numbers, strings, lists and dicts."
    )


def _key(key: "Any", path: str) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise ConfigValueError(
        f"{_shortened(path)} has the key {shown(key)}, but keys must be strings."
    )


def _too_deep(path: str) -> ConfigValueError:
    return ConfigValueError(
        f"{_shortened(path)} is nested too deeply: at most {MAX_DEPTH} levels are taken."
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."
