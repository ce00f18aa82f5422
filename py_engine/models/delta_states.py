"""The recurrent states of a sequence in the layers with linear attention, and one copy of them.

A state holds all tokens so far and cannot be cut back to fewer, as a KV cache can. So there is one
copy, of a little before the end of the last prompt: another reply to it, a turn whose history
lacks the prompt's last tokens (chat templates that open a reply with "<think>" leave that away
later), and any other end of the conversation go on from there.
"""

from __future__ import annotations

from collections.abc import Mapping

from py_engine.gpu.types import Buffer, Device
from py_engine.models.spec import DecoderSpec

SAVED_BEFORE_END = 8
"""How many tokens before a prompt's end the copy is made: more than templates add to open a reply.

The last one is always computed again, because its logits are asked for.
"""

LEAST_GAIN = 32
"""How many tokens beyond the last copy are worth another, which splits a chunk of prefill."""


def state_names(layer: int) -> tuple[str, str]:
    """Return the names of a layer's buffers: the convolution's last tokens, and the memory."""
    return f"delta_history {layer}", f"delta_memory {layer}"


def state_sizes(spec: DecoderSpec) -> dict[str, int]:
    """Return the bytes of all states and of their copies by the buffers' names."""
    sizes: dict[str, int] = {}
    for layer, shape in spec.delta_layers.items():
        history, memory = state_names(layer)
        sizes |= {history: shape.history_bytes, memory: shape.memory_bytes}
    return sizes | {_copy_of(name): size for name, size in sizes.items()}


def _copy_of(name: str) -> str:
    return f"saved {name}"


class DeltaStates:
    """Knows which tokens the states of a sequence hold, and keeps the copy.

    `position` is everywhere the number of tokens that the sequence has once all that is enqueued
    has run. States need no clearing: the kernel ignores them at position 0.
    """

    def __init__(self, device: Device, spec: DecoderSpec, buffers: Mapping[str, Buffer]) -> None:
        self._device = device
        self._pairs = [
            (buffers[name], buffers[_copy_of(name)])
            for layer in spec.delta_layers
            for name in state_names(layer)
        ]
        self._saved = 0  # how many tokens the copy holds; 0 for none
        self._save_at = 0  # where the next copy is made; 0 for nowhere

    @property
    def are_empty(self) -> bool:
        """Whether the model has no such layers."""
        return not self._pairs

    def reusable_tokens(self, n_tokens: int, position: int) -> int:
        """Return how many of the sequence's first `n_tokens` tokens can be gone on from."""
        if not self._pairs or n_tokens == position:
            return n_tokens
        return self._saved if self._saved <= n_tokens else 0

    def start(self, kept_tokens: int, position: int, prompt_tokens: int) -> None:
        """Go back to the first `kept_tokens`, and plan the copy of a prompt of `prompt_tokens`."""
        if not self._pairs:
            return
        if kept_tokens != position and kept_tokens:
            for state, saved in self._pairs:
                self._device.copy_buffer(saved, state, state.nbytes)
        if not kept_tokens:
            self._saved = 0
        target = prompt_tokens - SAVED_BEFORE_END
        gains = target >= kept_tokens and target - self._saved >= LEAST_GAIN
        self._save_at = target if gains else 0

    def tokens_before_copy(self, position: int) -> int | None:
        """Return how many of the next tokens come before the copy is made; None for no copy."""
        return self._save_at - position if self._save_at else None

    def save(self, position: int) -> None:
        """Copy the states, which hold `position` tokens."""
        for state, saved in self._pairs:
            self._device.copy_buffer(state, saved, state.nbytes)
        self._saved, self._save_at = position, 0
