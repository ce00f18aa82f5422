"""How many tokens a reply took, and how long."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass
class Latencies:
    """Seconds of each token's parts. Bias, penalties and the draw are one pass of the GPU.

    `sample_s` runs from enqueueing the draw until its token was read; only controlled replies have
    it and the two before it.
    """

    grammar_bitmask_s: list[float] = field(default_factory=list)
    logit_processor_s: list[float] = field(default_factory=list)
    sample_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)


@dataclass
class Statistics:
    """Counts and times of one reply or of several added up. Times are in seconds.

    `prefilled_tokens` are those of the prompt that the KV cache did not hold, `cached_tokens` the
    others. `prefill_s` ends with the first token. `completion_tokens` counts every token that was
    drawn for the reply, the stop token included; the first of a reply is part of its prefill.
    Of the tokens of drafts some were accepted, as what would have been drawn anyway.
    """

    prefilled_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    decode_steps: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    grammar_s: float = 0.0
    accepted_draft_tokens: int = 0
    rejected_draft_tokens: int = 0

    def add(self, other: Statistics) -> None:
        """Add the counts and times of another reply."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prefilled tokens per second, 0 before the first token."""
        return self.prefilled_tokens / self.prefill_s if self.prefill_s > 0 else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens after the first per second, 0 where there were none."""
        return self.decode_steps / self.decode_s if self.decode_s > 0 else 0.0

    def speeds_text(self) -> str:
        """Return the speeds in WebLLM's words."""
        return (
            f"prefill: {self.prefill_tokens_per_s:.4f} tokens/sec, "
            f"decoding: {self.decode_tokens_per_s:.4f} tokens/sec"
        )

    @property
    def time_per_output_token_s(self) -> float:
        """Seconds per token after the first, 0 where there were none."""
        return self.decode_s / self.decode_steps if self.decode_steps else 0.0

    @property
    def grammar_per_token_s(self) -> float:
        """Seconds of the grammar's work per token, 0 where there was none."""
        return self.grammar_s / self.completion_tokens if self.completion_tokens else 0.0
