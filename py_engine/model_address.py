"""What a user may write as a model's address, and what it means.

| address | the model's files |
|---|---|
| `https://huggingface.co/owner/name`, `hf:owner/name`, `owner/name` | a repository on the hub |
| `owner/name@revision`, `https://huggingface.co/owner/name/tree/revision` | ... at a revision |
| `owner/name:Q4_K_M` | ... the GGUF file of this quantisation in it |
| `hf:owner/name/file.gguf`, `https://huggingface.co/owner/name/blob/main/file.gguf` | one file |
| `hf:owner/name/folder/`, `https://huggingface.co/owner/name/tree/main/folder` | a folder in it |
| `https://example.org/models/X`, `models/X/`, `./X`, `/X` | a folder on a web server |
| `https://example.org/X.gguf?signature=1` | one file; a query goes with every file |
| `local:NAME` | files that a user picked, registered as NAME |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from py_engine.errors import ConfigurationFieldError

HUB = "https://huggingface.co"

# One site under several names. A mirror on another host is a hub only where it is the endpoint.
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")

# The hub has pages of its own under these names, so that no account can have them.
_NO_OWNERS = ("models", "datasets", "spaces", "api", "docs", "assets", "static")

_MODEL_FILE = re.compile(r"\.(gguf|safetensors)$", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
# Revisions with slashes in them, as the hub names those of pull requests and conversions.
_REVISION = r"refs/(?:pr/\d+|convert/[\w.-]+)|[^/]+"
_IN_REPOSITORY = re.compile(rf"(?:resolve|tree|blob|raw)/({_REVISION})(?:/(.*))?")
_NAME = r"\w[\w.-]*"
_SHORT = re.compile(
    rf"({_NAME}/{_NAME})(?:@(refs/pr/\d+|refs/convert/{_NAME}|[^/:@]+))?(?::({_NAME}))?(?:/(.*))?",
    re.ASCII,
)


@dataclass(frozen=True)
class ModelAddress:
    """Where a model's files are.

    `place` is a repository (`owner/name`), the URL of a folder that ends in a slash and may be
    relative, or the name of local files. Of a repository, `revision` is a branch, tag or commit
    and `folder` the path of a folder in it ("" or ending in a slash). `entry` is the file that is
    named, "" for none, and `quantization` the one of the GGUF file to choose. `query` ("" or
    `?...`) belongs to every file's URL.
    """

    kind: Literal["hub", "web", "local"]
    place: str
    entry: str = ""
    revision: str = "main"
    folder: str = ""
    quantization: str = ""
    query: str = ""


def parse_model_address(text: str, endpoint: str = HUB) -> ModelAddress:
    """Read a model's address as in the table above; a URL under `endpoint` is a hub's too.

    Errors: ConfigurationFieldError for an address that is none.
    """
    text = text.strip()
    if text.startswith("local:"):
        return ModelAddress("local", text.removeprefix("local:"))
    if text.startswith("hf:"):
        return _short(text.removeprefix("hf:").removeprefix("//"), text)
    if text.lower().startswith(("http://", "https://")):
        return _url(text, endpoint)
    if _is_repository(text):
        return _short(text, text)
    if not text or (_SCHEME.match(text) and "://" not in text):
        raise _invalid(text)
    return _web(text)


def is_address(model_id: str) -> bool:
    """Whether a model id is itself an address: no id of a catalogue has a slash or a scheme."""
    return "/" in model_id or bool(_SCHEME.match(model_id))


def _is_repository(text: str) -> bool:
    """Whether this is `owner/name`, perhaps with a revision or quantisation, not a relative URL."""
    found = _SHORT.fullmatch(text)
    owner = text.partition("/")[0]
    return (
        found is not None
        and found[4] is None
        and owner not in _NO_OWNERS
        and not _MODEL_FILE.search(found[1])
    )


def _short(text: str, whole: str) -> ModelAddress:
    found = _SHORT.fullmatch(text)
    if found is None:
        raise _invalid(whole)
    repository, revision, quantization, path = found.groups(default="")
    return _in_repository(repository, revision or "main", path, quantization=quantization)


def _url(text: str, endpoint: str) -> ModelAddress:
    parts = urlsplit(text)
    is_hub = parts.hostname in _HUB_HOSTS
    if not is_hub and not text.startswith(f"{endpoint.rstrip('/')}/"):
        return _web(text)
    path = unquote(parts.path if is_hub else parts.path[len(urlsplit(endpoint).path) :])
    owner, _, rest = path.strip("/").partition("/")
    name, _, rest = rest.partition("/")
    found = _IN_REPOSITORY.fullmatch(rest) if rest else None
    if not name or (rest and not found):
        raise _invalid(text)
    revision, inner = found.groups(default="") if found else ("main", "")
    if path.endswith("/") and inner:
        inner += "/"
    return _in_repository(f"{owner}/{name}", revision, inner)


def _in_repository(
    repository: str, revision: str, path: str, *, quantization: str = ""
) -> ModelAddress:
    folder, entry = _split(path)
    return ModelAddress("hub", repository, entry, revision, folder, quantization)


def _web(text: str) -> ModelAddress:
    url, mark, query = text.partition("#")[0].partition("?")
    folder, entry = _split(url)
    return ModelAddress("web", folder, unquote(entry), query=mark + query)


def _split(path: str) -> tuple[str, str]:
    """Return the folder, ending in a slash unless it is empty, and the model's file in it."""
    folder, slash, last = path.rpartition("/")
    if _MODEL_FILE.search(last):
        return folder + slash, last
    return (f"{path}/" if last else path), ""


def _invalid(text: str) -> ConfigurationFieldError:
    return ConfigurationFieldError(
        f"model is {text!r}, which is no model's address. Give a repository on Hugging Face "
        "(hf:owner/name, hf:owner/name@revision, hf:owner/name/file.gguf), the URL of a folder or "
        "of a .gguf file, or local:NAME for files that were picked."
    )
