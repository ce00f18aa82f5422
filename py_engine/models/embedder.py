"""What the embedding pipeline needs to know of a loaded encoder, and its options."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from py_engine.config import ChatConfig
from py_engine.json_fields import JsonFields

Pooling = Literal["cls", "mean"]

POOLINGS: tuple[Pooling, ...] = ("cls", "mean")
DEFAULT_MAX_BATCH_SIZE = 32


@dataclass(frozen=True)
class EmbeddingOptions:
    """How texts become vectors.

    `pooling` makes a text's vector of its tokens' last hidden states: the first token's ("cls"), or
    the mean of all. `normalize` divides it by its Euclidean length. `add_special_tokens` puts the
    tokenizer's special tokens around texts that do not begin with them. At most `max_batch_size`
    texts are computed together.
    """

    pooling: Pooling = "cls"
    normalize: bool = False
    add_special_tokens: bool = True
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE


def embedding_options(config: ChatConfig) -> EmbeddingOptions:
    """Read the options of an embedding model from `mlc-chat-config.json`, `overrides`, `chat_opts`.

    The fields have the names of `EmbeddingOptions`. Where one is not given, MLC's
    `embedding_metadata` has the model's own `pooling_strategy` and `normalize`, and `model_config`
    its `max_batch_size`; without those it is WebLLM's: the first token's vector as it is.
    Errors: ModelFileFormatError or ConfigurationFieldError for a bad value.
    """
    sources = dict.fromkeys(config.overridden, "overrides or chat_opts")
    fields = JsonFields(config.data, config.file, sources=sources)
    metadata, defaults = fields.object("embedding_metadata"), EmbeddingOptions()
    max_batch_size = config.model_fields().integer(
        "max_batch_size", DEFAULT_MAX_BATCH_SIZE, minimum=1
    )
    pooling = _pooling(metadata, "pooling_strategy", defaults.pooling)
    return EmbeddingOptions(
        pooling=_pooling(fields, "pooling", pooling),
        normalize=fields.boolean("normalize", metadata.boolean("normalize", defaults.normalize)),
        add_special_tokens=fields.boolean("add_special_tokens", defaults.add_special_tokens),
        max_batch_size=fields.integer("max_batch_size", max_batch_size, minimum=1),
    )


def _pooling(fields: JsonFields, name: str, default: Pooling) -> Pooling:
    value = fields.string(name, default)
    if value not in POOLINGS:
        raise fields.invalid(name, " or ".join(f'"{pooling}"' for pooling in POOLINGS))
    return value


class Embedder(Protocol):
    """One loaded encoder."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def context_window_size(self) -> int:
        """The most tokens of one sequence."""
        ...

    @property
    def max_batch_size(self) -> int:
        """The most sequences of one batch."""
        ...

    @property
    def max_batch_tokens(self) -> int:
        """The most tokens of all sequences of one batch, at least `context_window_size`."""
        ...

    async def embed(self, batch: Sequence[Sequence[int]]) -> list[array[float]]:
        """Return one vector, f32 (hidden_size,), for each sequence of token ids (none is empty).

        The vectors do not depend on the other sequences of the batch.
        """
        ...

    def destroy(self) -> None:
        """Free everything the model holds on the GPU."""
        ...
