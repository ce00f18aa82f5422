"""One loaded embedding model: texts to vectors, one request after another."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from py_engine.api.embedding import EmbeddingRequest
from py_engine.config import ChatConfig, ModelRecord, ModelType
from py_engine.errors import (
    ConfigValueError,
    DeviceError,
    EmbeddingExceedContextWindowSizeError,
    EmbeddingInputEmptyError,
    MLCError,
    RangeError,
)
from py_engine.generation import Statistics
from py_engine.gpu.types import Device
from py_engine.host import EngineHost
from py_engine.models.embedder import Embedder, EmbeddingOptions, embedding_options
from py_engine.models.registry import ENCODERS
from py_engine.progress import LoadReporter
from py_engine.tokenizer import Tokenizer, load_tokenizer
from py_engine.turns import Turns
from py_engine.weights.checkpoint import Checkpoint

"""`ModelRecord.model_type` of embedding models; WebLLM's `ModelType.embedding`."""


@dataclass(frozen=True)
class Embeddings:
    """One vector for each input, in their order, and what they took.

    The prompt's tokens, special tokens included, are `statistics.prefilled_tokens`.
    """

    vectors: list[array[float]]
    statistics: Statistics


class EmbeddingModel:
    """An embedding model that requests can use one after another, in the order of their coming."""

    def __init__(
        self,
        config: ChatConfig,
        tokenizer: Tokenizer,
        embedder: Embedder,
        options: EmbeddingOptions,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.options = options
        self.statistics = Statistics()
        self._embedder = embedder
        self._turns = Turns()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return the vectors of a request's inputs.

        Token ids are taken as they are, texts get the model's special tokens. `dimensions` keeps
        the first values of each vector, normalised again where vectors are normalised.
        Errors, before any work: RangeError for `dimensions`, ConfigValueError for an unknown token
        id, EmbeddingInputEmptyError, EmbeddingExceedContextWindowSizeError: nothing is truncated.
        Raises what `close` was given when the model was closed meanwhile.
        """
        self._check_dimensions(request.dimensions)
        async with self._turns.take():
            sequences = await self._token_ids(request.inputs)
            began = time.perf_counter()
            vectors: list[array[float]] = []
            try:
                for batch in self._batches(sequences):
                    vectors += await self._embedder.embed(batch)
                    self._turns.raise_if_closed()
            except DeviceError:
                self._turns.raise_if_closed()  # the reason, where the failure is its consequence
                raise
            statistics = Statistics(
                prefilled_tokens=sum(map(len, sequences)), prefill_s=time.perf_counter() - began
            )
            self.statistics.add(statistics)
        if request.dimensions is not None:
            vectors = [self._shortened(vector, request.dimensions) for vector in vectors]
        return Embeddings(vectors, statistics)

    def reset(self, *, keep_stats: bool = False) -> None:
        """Forget the statistics unless kept; an embedding model keeps nothing else."""
        if not keep_stats:
            self.statistics = Statistics()

    def close(self, reason: MLCError) -> None:
        """Free the model; the request at hand and waiting ones fail with `reason`."""
        if self._turns.is_closed:
            return
        self._turns.close(reason)
        self._embedder.destroy()
        self.tokenizer.destroy()

    def _check_dimensions(self, dimensions: int | None) -> None:
        size = self._embedder.hidden_size
        if dimensions is not None and not 1 <= dimensions <= size:
            raise RangeError(
                f"dimensions is {dimensions}, but this model's vectors can have 1 to {size}."
            )

    async def _token_ids(self, inputs: Sequence[str | Sequence[int]]) -> list[list[int]]:
        sequences = []
        for index, each in enumerate(inputs):
            ids = self._encode(each) if isinstance(each, str) else list(each)
            self._check(f"input[{index}]" if len(inputs) > 1 else "input", ids)
            sequences.append(ids)
            await asyncio.sleep(0)  # a long list must not hold up the worker's messages
            self._turns.raise_if_closed()
        return sequences

    def _encode(self, text: str) -> list[int]:
        ids = self.tokenizer.encode(text)
        return self.tokenizer.template.around(ids) if self.options.add_special_tokens else ids

    def _check(self, where: str, ids: Sequence[int]) -> None:
        window, vocab_size = self._embedder.context_window_size, self._embedder.vocab_size
        if not ids:
            raise EmbeddingInputEmptyError(f"{where} has no tokens. Give text or token ids.")
        if len(ids) > window:
            raise EmbeddingExceedContextWindowSizeError(
                f"{where} has {len(ids)} tokens, but the model's context_window_size is {window}. "
                "Split the text into shorter ones."
            )
        wrong = next((i for i in ids if not 0 <= i < vocab_size), None)
        if wrong is not None:
            raise ConfigValueError(
                f"{where} has the token id {wrong}, but this model's ids are 0 to {vocab_size - 1}."
            )

    def _batches(self, sequences: Sequence[list[int]]) -> Iterator[list[list[int]]]:
        """Yield the sequences in order, as many at a time as the embedder takes.

        They need no sorting by length: the embedder packs them without padding.
        """
        batch: list[list[int]] = []
        n_tokens = 0
        for ids in sequences:
            n_tokens += len(ids)
            full = len(batch) == self._embedder.max_batch_size
            if full or n_tokens > self._embedder.max_batch_tokens:
                yield batch
                batch, n_tokens = [], len(ids)
            batch.append(ids)
        if batch:
            yield batch

    def _shortened(self, vector: array[float], dimensions: int) -> array[float]:
        short = vector[:dimensions]
        if not self.options.normalize or dimensions == len(vector):
            return short
        return normalized(short)


def is_embedding_model(record: ModelRecord, config: ChatConfig) -> bool:
    """Return whether a model makes embeddings: its record says so, or its architecture does."""
    named = record.model_type == ModelType.embedding
    return named or config.model_type in ENCODERS


async def load_embedding_model(
    host: EngineHost,
    checkpoint: Checkpoint,
    config: ChatConfig,
    device: Device,
    reporter: LoadReporter,
) -> EmbeddingModel:
    """Load the embedding model of `checkpoint` onto `device`.

    On failure nothing stays in memory. Raises the errors of `embedding_options`, `load_tokenizer`
    and the host's `load_embedder`.
    """
    options = embedding_options(config)
    tokenizer = await load_tokenizer(checkpoint.tokenizer_source, config)
    try:
        embedder = await host.load_embedder(device, checkpoint, config, reporter.on_load)
    except BaseException:
        tokenizer.destroy()
        raise
    return EmbeddingModel(config, tokenizer, embedder, options)


def normalized(vector: array[float]) -> array[float]:
    """Return `vector` with length 1; a zero vector stays as it is."""
    length = math.sqrt(math.fsum(value * value for value in vector))
    return array("f", (value / length for value in vector)) if length > 0 else vector
