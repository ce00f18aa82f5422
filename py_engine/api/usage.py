"""`usage` of a response: OpenAI's counts, and WebLLM's speeds and times in `extra`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from py_engine.generation.statistics import Latencies, Statistics


def usage(
    statistics: Statistics,
    *,
    prompt_tokens: int,
    cached_tokens: int,
    e2e_latency_s: float,
    reasoning_tokens: int | None = None,
    grammar_init_s: float | None = None,
    latencies: Latencies | None = None,
) -> dict[str, Any]:
    """Return `usage`. `prompt_tokens` are all of the prompt, `cached_tokens` those of them that
    were in the KV cache already; `completion_tokens` all that were drawn, the stop token included.

    `grammar_init_s` adds the grammar's times, `latencies` WebLLM's `latencyBreakdown`: the seconds
    of each token. Bias, penalties and the draw are one pass of the GPU, whose time is
    `sampleTime`.
    """
    completion_tokens = statistics.completion_tokens
    made: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
        "extra": {
            "e2e_latency_s": e2e_latency_s,
            "prefill_tokens_per_s": statistics.prefill_tokens_per_s,
            "decode_tokens_per_s": statistics.decode_tokens_per_s,
            "time_to_first_token_s": statistics.prefill_s,
            "time_per_output_token_s": statistics.time_per_output_token_s,
        },
    }
    details = {}
    if reasoning_tokens is not None:
        details["reasoning_tokens"] = reasoning_tokens
    if statistics.accepted_draft_tokens or statistics.rejected_draft_tokens:
        details["accepted_prediction_tokens"] = statistics.accepted_draft_tokens
        details["rejected_prediction_tokens"] = statistics.rejected_draft_tokens
    if details:
        made["completion_tokens_details"] = details
    if grammar_init_s is not None:
        made["extra"]["grammar_init_s"] = grammar_init_s
        made["extra"]["grammar_per_token_s"] = statistics.grammar_per_token_s
    if latencies is not None:
        made["extra"]["latencyBreakdown"] = {
            "logitProcessorTime": latencies.logit_processor_s,
            "logitBiasTime": [],
            "penaltyTime": [],
            "sampleTime": latencies.sample_s,
            "totalTime": latencies.total_s,
            "grammarBitmaskTime": latencies.grammar_bitmask_s,
        }
    return made
