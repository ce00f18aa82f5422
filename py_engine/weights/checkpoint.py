"""Opens a model's files of any kind: what is in them, before anything large is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from py_engine.config import CHAT_CONFIG_FILE
from py_engine.errors import MissingFileError, ModelFileFormatError, TruncatedFileError
from py_engine.json_fields import JsonFields
from py_engine.models.registry import ENCODERS
from py_engine.storage.source import NOT_THERE, FileInfo, ModelSource
from py_engine.storage.tasks import run_together
from py_engine.weights.formats import PLAIN_FORMATS
from py_engine.weights.gguf import read_gguf
from py_engine.weights.gguf_config import gguf_config_json
from py_engine.weights.gguf_source import GgufTokenizerSource
from py_engine.weights.hf_config import chat_config_json
from py_engine.weights.hf_encoder import encoder_config_json
from py_engine.weights.hf_files import CONFIG_FILE, read_hf_files
from py_engine.weights.mlc import TensorCache, read_tensor_cache
from py_engine.weights.parameters import FileKind
from py_engine.weights.records import TensorRecord
from py_engine.weights.safetensors import read_safetensors, shard_files

SAFETENSORS_FILE = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"

Listing = Mapping[str, FileInfo] | None


@dataclass(frozen=True)
class Checkpoint:
    """A model's files, opened.

    `index` is the file that lists the tensors, as messages name it. `config_json` is the content of
    `mlc-chat-config.json`, which other kinds of files are translated to; its `quantization` is how
    the weights are stored. `files` has the sizes in bytes of those with tensors, which are read
    from `source`, the tokenizer's files from `tokenizer_source`.
    """

    kind: FileKind
    index: str
    config_json: Mapping[str, Any]
    tensors: Mapping[str, TensorRecord]
    files: Mapping[str, int]
    source: ModelSource
    tokenizer_source: ModelSource

    @property
    def quantization(self) -> str:
        """How the weights are stored, in MLC's names."""
        return str(self.config_json["quantization"])

    @property
    def config_file(self) -> str:
        """The file that `config_json` comes from."""
        return {"mlc": CHAT_CONFIG_FILE, "hf": CONFIG_FILE, "gguf": self.index}[self.kind]


async def open_checkpoint(source: ModelSource) -> Checkpoint:
    """Find out what kind of model `source` holds, and read its configuration and its index.

    A GGUF file is one that the model's address names; of a folder `mlc-chat-config.json` makes it
    MLC's, `config.json` Hugging Face's.
    Errors: MissingFileError, ModelFileFormatError, TruncatedFileError, UnsupportedModelConfigError,
    UnknownArchitectureError, UnknownQuantizationError, and those of the source.
    """
    if source.entry.lower().endswith(".gguf"):
        return await _open_gguf(source)
    listing = await source.list_files()
    config = await _chat_config(source, listing)
    if config is not None:
        return await _open_mlc(source, config, listing)
    return await _open_hf(source, listing)


async def _open_gguf(source: ModelSource) -> Checkpoint:
    file = await read_gguf(source, source.entry)
    return Checkpoint(
        kind="gguf",
        index=file.path,
        config_json=gguf_config_json(file),
        tensors=file.tensors,
        files=file.files,
        source=source,
        tokenizer_source=GgufTokenizerSource(source, file),
    )


async def _chat_config(source: ModelSource, listing: Listing) -> Any:
    if listing is not None and CHAT_CONFIG_FILE not in listing:
        return None
    try:
        return await source.read_json(CHAT_CONFIG_FILE)
    except NOT_THERE:
        return None


async def _open_mlc(source: ModelSource, config: Any, listing: Listing) -> Checkpoint:
    fields = JsonFields(config, CHAT_CONFIG_FILE)
    fields.string("quantization")
    cache = await read_tensor_cache(source)
    if listing is not None:
        _check_sizes(cache, listing, source.url)
    return Checkpoint("mlc", cache.path, fields.data, cache.tensors, cache.shards, source, source)


def _check_sizes(cache: TensorCache, listing: Mapping[str, FileInfo], url: str) -> None:
    """Compare the shards that are there with what the index says of them."""
    for path, nbytes in cache.shards.items():
        if path not in listing:
            raise MissingFileError(
                f"{url}{path} does not exist, but {cache.path} names it. Download the model again."
            )
        found = listing[path].size
        if found != nbytes:
            error = TruncatedFileError if found < nbytes else ModelFileFormatError
            raise error(
                f"{url}{path} has {found} bytes, but {cache.path} says {nbytes}. Download the file "
                "again, and use an index and shards of the same model."
            )


async def _open_hf(source: ModelSource, listing: Listing) -> Checkpoint:
    try:
        files = await read_hf_files(source, listing)
    except MissingFileError as error:
        raise MissingFileError(
            f"{source.url} has neither {CHAT_CONFIG_FILE} (a model in MLC's format) nor "
            f"{CONFIG_FILE} (one of Hugging Face). Correct the model's address."
        ) from error
    index, sizes = await _safetensors(source, listing)
    headers = await run_together(
        read_safetensors(source, path, size) for path, size in sizes.items()
    )
    tensors = _joined(headers, source.url)
    make = encoder_config_json if files.config.value("model_type") in ENCODERS else chat_config_json
    config = make(files, _plain_format(tensors))
    return Checkpoint("hf", index, config, tensors, sizes, source, source)


async def _safetensors(source: ModelSource, listing: Listing) -> tuple[str, dict[str, int]]:
    """Return the name of the index, and the files with their sizes.

    Without an index or a file of the usual name, a listed folder's files are taken as they are.
    """
    if listing is None:
        return await _unlisted_safetensors(source)
    if SAFETENSORS_FILE in listing:
        paths = [SAFETENSORS_FILE]
    elif SAFETENSORS_INDEX in listing:
        paths = shard_files(await source.read_json(SAFETENSORS_INDEX), SAFETENSORS_INDEX)
    else:
        paths = [path for path in listing if path.endswith(".safetensors") and "/" not in path]
    missing = [path for path in paths if path not in listing]
    if missing or not paths:
        raise _no_safetensors(source, missing)
    index = SAFETENSORS_INDEX if SAFETENSORS_INDEX in listing else paths[0]
    return index, {path: listing[path].size for path in paths}


async def _unlisted_safetensors(source: ModelSource) -> tuple[str, dict[str, int]]:
    try:
        return SAFETENSORS_FILE, {SAFETENSORS_FILE: await source.size(SAFETENSORS_FILE)}
    except NOT_THERE:
        pass  # a large model has an index instead
    try:
        index = await source.read_json(SAFETENSORS_INDEX)
    except MissingFileError as error:
        raise _no_safetensors(source, []) from error
    paths = shard_files(index, SAFETENSORS_INDEX)
    sizes = await run_together(source.size(path) for path in paths)
    return SAFETENSORS_INDEX, dict(zip(paths, sizes, strict=True))


def _no_safetensors(source: ModelSource, missing: list[str]) -> MissingFileError:
    if missing:
        return MissingFileError(
            f"{source.url} lacks {', '.join(missing)}, which {SAFETENSORS_INDEX} names. Download "
            "the model again."
        )
    return MissingFileError(
        f"{source.url} has neither {SAFETENSORS_FILE} nor {SAFETENSORS_INDEX}. Choose a model with "
        "weights in safetensors, MLC's or GGUF's format."
    )


def _joined(headers: list[dict[str, TensorRecord]], url: str) -> dict[str, TensorRecord]:
    tensors: dict[str, TensorRecord] = {}
    for records in headers:
        for name, record in records.items():
            if name in tensors:
                raise ModelFileFormatError(
                    f"{url}: {tensors[name].file} and {record.file} both have a tensor {name!r}. "
                    "Keep the files of one model only."
                )
            tensors[name] = record
    return tensors


def _plain_format(tensors: Mapping[str, TensorRecord]) -> str:
    """Return the weight format of unquantised tensors: that of most bytes."""
    nbytes = Counter[str]()
    for record in tensors.values():
        if record.dtype in PLAIN_FORMATS:
            nbytes[record.dtype] += record.nbytes
    dtype = max(nbytes, key=nbytes.__getitem__, default="F32")
    return PLAIN_FORMATS[dtype]
