"""The Hugging Face hub's conventions: addresses of files, the listing of a repository, refusals.

Source: https://huggingface.co/docs/hub/api and huggingface_hub's `hf_hub_url`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from py_engine.config import HuggingFaceConfig
from py_engine.errors import (
    AccessDeniedError,
    MissingFileError,
    ModelFileError,
    RepositoryNotFoundError,
)
from py_engine.json_fields import JsonFields
from py_engine.model_address import HUB, ModelAddress
from py_engine.storage.source import FileInfo

# What llama.cpp takes of several when nothing is said.
_PREFERRED_GGUF = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "Q5_K_M", "Q8_0")
_TOKENS = "https://huggingface.co/settings/tokens"
_CONFIG_FILES = ("mlc-chat-config.json", "config.json")
_LATER_PART = re.compile(r"-(?!00001-)\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


class HubRepository:
    """One revision of a repository, or a folder in it, as an endpoint serves it."""

    def __init__(self, address: ModelAddress, config: HuggingFaceConfig) -> None:
        self._address = address
        self._config = config
        self._endpoint = config.endpoint.rstrip("/")

    @property
    def folder_url(self) -> str:
        """The URL that the paths of files are appended to; it ends in a slash."""
        path = self._config.path_template.format(
            repo=self._address.place, revision=quote(self._address.revision, safe="")
        )
        return f"{self._endpoint}/{path.strip('/')}/{quote(self._address.folder)}"

    @property
    def tree_url(self) -> str:
        """The URL of the first page of the listing."""
        revision = quote(self._address.revision, safe="")
        folder = quote(self._address.folder.rstrip("/"))
        path = f"{self._address.place}/tree/{revision}/{folder}".rstrip("/")
        return f"{self._endpoint}/api/models/{path}?recursive=true"

    @property
    def is_mirror(self) -> bool:
        """Whether files come from elsewhere than huggingface.co, where a listing may lack."""
        return self._endpoint != HUB

    def headers(self, url: str) -> dict[str, str]:
        """Return the headers for a request; the access token goes to the endpoint alone."""
        token = self._config.token
        if not token or urlsplit(url)[:2] != urlsplit(self._endpoint)[:2]:
            return {}
        return {"Authorization": f"Bearer {token}"}

    def files(self, entries: Any) -> dict[str, FileInfo]:
        """Return the files of one page of the listing, by their paths in the folder.

        Errors: ModelFileFormatError for what is no listing.
        """
        page = JsonFields({"entries": entries}, self.tree_url)
        return dict(self._entries(page.objects("entries")))

    def explained(self, error: ModelFileError, code: str | None) -> ModelFileError:
        """Return a refused or missing repository's error in the hub's terms.

        `code` is the answer's X-Error-Code.
        """
        place, revision = self._address.place, self._address.revision
        page = f"{self._endpoint}/{place}"
        if isinstance(error, AccessDeniedError):
            refused = AccessDeniedError(_refusal(page, code, bool(self._config.token)))
            refused.status = error.status
            return refused
        if isinstance(error, MissingFileError) and code == "RevisionNotFound":
            return RepositoryNotFoundError(
                f"{page} has no revision {revision!r}. Give one of its branches, tags or commits."
            )
        if isinstance(error, MissingFileError) and code == "RepoNotFound":
            return RepositoryNotFoundError(
                f"{page} does not exist. Correct the repository's owner and name."
            )
        return error

    def _entries(self, items: Iterable[JsonFields]) -> Iterable[tuple[str, FileInfo]]:
        folder = self._address.folder
        for item in items:
            path = item.string("path")
            if item.string("type", "file") != "file" or not path.startswith(folder):
                continue
            lfs = item.object("lfs")
            size = (lfs if "size" in lfs else item).integer("size", minimum=0)
            sha256 = lfs.string("oid", "").removeprefix("sha256:").lower() or None
            git_oid = None if sha256 else item.string("oid", "").lower() or None
            yield path.removeprefix(folder), FileInfo(size, sha256, git_oid)


def next_page(link: str | None) -> str | None:
    """Return the URL of the next page of a listing from its Link header."""
    found = re.search(r'<([^>]+)>\s*;\s*rel="?next"?', link or "")
    return found[1] if found else None


def chosen_gguf(files: Mapping[str, FileInfo], quantization: str, where: str) -> str:
    """Return the GGUF file that a repository's address means; "" where it means a folder.

    Without a `quantization` that is Q4_K_M's, or one near it, where there is no other format.
    Raises MissingFileError when the quantisation is not there.
    """
    found = [
        path
        for path in sorted(files)
        if path.lower().endswith(".gguf")
        and not _LATER_PART.search(path)
        and "mmproj" not in path.lower()
    ]
    if not quantization and (not found or any(name in files for name in _CONFIG_FILES)):
        return ""
    for wanted in (quantization,) if quantization else _PREFERRED_GGUF:
        name = re.compile(rf"(?<![a-z0-9]){re.escape(wanted)}(?![a-z0-9_])", re.IGNORECASE)
        if matching := [path for path in found if name.search(path.rpartition("/")[2])]:
            return matching[0]
    if not quantization:
        return found[0]
    raise MissingFileError(
        f"{where} has no GGUF file of the quantisation {quantization!r}, but "
        f"{', '.join(found) or 'none at all'}. Name one of these."
    )


def _refusal(page: str, code: str | None, has_token: bool) -> str:
    if code == "GatedRepo" and has_token:
        return (
            f"{page} is gated, and the access token's account has not accepted its conditions. "
            "Accept them on that page, then load the model again."
        )
    if has_token:
        return (
            f"{page} cannot be read with this access token: it is not valid, or may not read this "
            f"repository. Make one that may at {_TOKENS}."
        )
    remedy = f"set AppConfig.huggingface.token to an access token of your account ({_TOKENS})"
    if code == "GatedRepo":
        return f"{page} is gated. Accept its conditions on that page, then {remedy}."
    return (
        f"{page} is private, gated, or does not exist. Correct the name (that of a folder on this "
        f"site ends in a slash), or {remedy}."
    )
