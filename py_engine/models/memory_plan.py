"""What a model takes on the GPU, known from its configuration and index before anything is fetched.

A KV cache grows with its sequence (`kv_cache.py`), so a model needs its weights, its working memory
and the first part of the cache to start, and the rest of the cache only for long sequences.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from py_engine.errors import OutOfMemoryError
from py_engine.gpu.memory import free_memory
from py_engine.gpu.types import Device
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.models.kv_cache import first_room

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the GPU: of weights, of what computing takes beside them, and of KV caches.

    `caches` has the shape of each pair of keys and values; an encoder has none. With
    `can_be_quantised` the weights could load in 4 bits instead.
    """

    weights: int
    working: int
    caches: Sequence[AttentionShape] = ()
    context_window_size: int = 0
    can_be_quantised: bool = False

    def cache(self, n_tokens: int) -> int:
        """Return the bytes of the keys and values of a sequence of `n_tokens`."""
        return sum(2 * min(n_tokens, shape.slots) * shape.slot_bytes for shape in self.caches)

    @property
    def at_first(self) -> int:
        """What the model takes before its first long sequence."""
        first = sum(2 * first_room(shape) * shape.slot_bytes for shape in self.caches)
        return self.weights + self.working + first

    @property
    def in_full(self) -> int:
        """What the model takes with a sequence that fills its context."""
        return self.weights + self.working + self.cache(self.context_window_size)

    def tokens_that_fit(self, nbytes: int) -> int:
        """Return how long a sequence may become when the model may take `nbytes`; 0 for none."""
        low, high = 0, self.context_window_size
        while low < high:
            middle = (low + high + 1) // 2
            if self.weights + self.working + self.cache(middle) <= nbytes:
                low = middle
            else:
                high = middle - 1
        return low


def require_memory_for(plan: MemoryPlan, device: Device) -> None:
    """Refuse a model that cannot start within the device's memory limit, before its download.

    One that can start but not fill its context is warned about. Without a limit all is allowed.
    Raises OutOfMemoryError with what would help.
    """
    free = free_memory(device)
    if free is None:
        return
    if plan.at_first > free:
        raise OutOfMemoryError(
            f"The model needs {_megabytes(plan.at_first)} of GPU memory to start "
            f"({_megabytes(plan.weights)} for its weights, {_megabytes(plan.working)} for "
            f"computing, {_megabytes(plan.at_first - plan.weights - plan.working)} for its first "
            f"tokens), but {_megabytes(free)} are free of the limit. {_remedy(plan, device, free)}"
        )
    if plan.in_full > free:
        logger.warning(
            "A sequence may have about %d of the %d tokens of the context window before GPU memory "
            "runs out: %s are free, and a full context takes %s.",
            plan.tokens_that_fit(free),
            plan.context_window_size,
            _megabytes(free),
            _megabytes(plan.in_full),
        )


def require_memory_together(plans: Mapping[str, MemoryPlan], device: Device) -> None:
    """Refuse models, by their ids, that cannot all start within the device's memory limit.

    When they can, but not all fill their contexts, that is warned about. Without a limit all is
    allowed. Raises OutOfMemoryError with what each needs and what would help.
    """
    free = free_memory(device)
    if free is None:
        return
    at_first = {model_id: plan.at_first for model_id, plan in plans.items()}
    if sum(at_first.values()) > free:
        raise OutOfMemoryError(
            f"The models need {_megabytes(sum(at_first.values()))} of GPU memory to start together "
            f"({_listed(at_first)}), but {_megabytes(free)} are free of the limit. Load fewer of "
            "them at a time, choose smaller ones, or raise gpuMemoryLimitMB in the AppConfig."
        )
    in_full = {model_id: plan.in_full for model_id, plan in plans.items()}
    if sum(in_full.values()) > free:
        logger.warning(
            "With full context windows the models would take %s of GPU memory (%s), but %s are "
            "free: long sequences may end before.",
            _megabytes(sum(in_full.values())),
            _listed(in_full),
            _megabytes(free),
        )


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{model_id} {_megabytes(nbytes)}" for model_id, nbytes in sizes.items())


def _remedy(plan: MemoryPlan, device: Device, free: int) -> str:
    remedies = []
    fitting = plan.tokens_that_fit(free)
    if fitting > 0:
        remedies.append(f"set context_window_size to at most {fitting} in chat_opts")
    if plan.can_be_quantised:
        remedies.append('load it in 4 bits (quantization "q4f16_1" in chat_opts)')
    if device.memory.nbytes > 0:
        remedies.append("load it without the other models")
    remedies += ["choose a smaller model", "raise gpuMemoryLimitMB in the AppConfig"]
    text = f"{', '.join(remedies[:-1])}, or {remedies[-1]}."
    return text[0].upper() + text[1:]


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB"
