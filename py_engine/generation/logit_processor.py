"""WebLLM's `LogitProcessor`: Python code that changes the logits of each step."""

from __future__ import annotations

import traceback
from array import array
from typing import TYPE_CHECKING, Any, Protocol

from py_engine.errors import LogitProcessorError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class LogitProcessor(Protocol):
    """What `MLCEngine.set_logit_processor_registry` takes for a model.

    It runs where the engine runs, once for each token, so it costs a read-back of all logits.
    """

    def process_logits(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the logits f32 (vocab_size,) to draw from; may change its argument in place."""
        ...

    def process_sampled_token(self, token_id: int) -> None:
        """Learn which token was drawn."""
        ...

    def reset_state(self) -> None:
        """Forget the tokens learnt: a new reply begins."""
        ...


def processed(processor: LogitProcessor, logits: array[float]) -> Any:
    """Return what `processor` makes of `logits`, f32 (vocab_size,).

    Raises LogitProcessorError when it raises, or gives another shape or NaN.
    """
    import numpy as np

    given = np.frombuffer(logits, np.float32).copy()
    result = guarded(processor.process_logits, given)
    try:
        changed = np.ascontiguousarray(result, np.float32)
    except (TypeError, ValueError) as error:
        raise LogitProcessorError(
            f"process_logits returned {type(result).__name__}, but must return an array of "
            f"{given.size} float32."
        ) from error
    if changed.shape != given.shape:
        raise LogitProcessorError(
            f"process_logits returned an array of shape {changed.shape}, but must return "
            f"{given.shape}, one logit for each token."
        )
    if np.isnan(changed).any() or (changed == np.inf).any():
        raise LogitProcessorError(
            "process_logits returned NaN or infinity; use a large negative number, or -inf, to "
            "forbid a token."
        )
    return np.maximum(changed, np.finfo(np.float32).min)


def guarded(method: Any, *args: Any) -> Any:
    """Call a method of a processor. Raises LogitProcessorError with its traceback."""
    try:
        return method(*args)
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        raise LogitProcessorError(
            f"The logit processor failed in {method.__name__}: {error!r}. Its traceback:\n{trace}"
        ) from error
