"""What a user picked, as pairs of a path and a JavaScript File or handle.

Runs on CPython, Pyodide and MicroPython: the page prepares what goes to the worker, because a File
loses its path in its folder on the way.
"""

from py_engine.errors import ConfigurationFieldError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def picked_entries(files: "Any") -> "list[tuple[str, Any]]":
    """Return pairs of path and File or handle.

    `files` is a File, a FileSystemFileHandle or a FileSystemDirectoryHandle; or several of them: a
    FileList, an array, a list; or such pairs themselves. Paths are relative to the folder that was
    picked, if it was one; a directory handle's is "".
    Errors: ConfigurationFieldError when there is nothing, or something else among them.
    """
    entries = [_entry(item) for item in _items(files)]
    if not entries:
        raise ConfigurationFieldError(
            "files: nothing was picked. Let the user pick a .gguf file, or a folder with "
            "config.json or mlc-chat-config.json."
        )
    return entries


def local_address(name: str) -> str:
    """Return the address under which files registered as `name` are loaded."""
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationFieldError(
            f"name is {name!r}, but must be a text that is not empty: the files are then loaded as "
            "local:NAME."
        )
    return "local:" + name


def _items(files: "Any") -> "list[Any]":
    if _is_file_or_handle(files):
        return [files]
    size = getattr(files, "length", None)  # of a FileList or an array
    return [files[index] for index in range(len(files) if size is None else int(size))]


def _entry(item: "Any") -> "tuple[str, Any]":
    if isinstance(item, (list, tuple)):
        path, file = item
    else:
        path, file = None, item
    if not _is_file_or_handle(file):
        raise ConfigurationFieldError(
            f"files: {file!r} is neither a File nor a file system handle. Pass what a file input, "
            "a drop or showDirectoryPicker() gave."
        )
    return (_path(file) if path is None else path), file


def _path(file: "Any") -> str:
    if getattr(file, "kind", None) == "directory":
        return ""
    # A folder's input says "folder/sub/file"; a File of another origin has "" there.
    path = getattr(file, "webkitRelativePath", None)
    if isinstance(path, str) and "/" in path:
        return path.split("/", 1)[1]
    return str(file.name)


def _is_file_or_handle(value: "Any") -> bool:
    if isinstance(value, (str, list, tuple, dict)):
        return False
    is_file = getattr(value, "size", None) is not None and hasattr(value, "slice")
    return is_file or getattr(value, "kind", None) in ("file", "directory")
