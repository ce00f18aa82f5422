"""Which fields a request may have: those we act on, those without effect here, and the refused.

One table for all endpoints; docs/api.md has it in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from py_engine.errors import ConfigValueError, UnsupportedFieldsError
from py_engine.json_fields import JsonFields
from py_engine.json_values import jsonable

SAMPLING_FIELDS = frozenset(
    (
        "enable_latency_breakdown",
        "extra_body",
        "frequency_penalty",
        "ignore_eos",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "min_p",
        "model",
        "n",
        "presence_penalty",
        "prompt_lookup_num_tokens",
        "repetition_penalty",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_k",
        "top_logprobs",
        "top_p",
    )
)

# What a server uses for its accounts and its caches, and hints how to compute the same answer.
WITHOUT_EFFECT = frozenset(
    (
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    )
)

# These name the request itself, so they cannot be in `extra_body`.
_OUTSIDE_EXTRA_BODY = ("extra_body", "input", "messages", "model", "prompt", "stream")


@dataclass(frozen=True)
class KnownFields:
    """The fields of one endpoint.

    `refused` are those that would change the answer and that we do not have, each with the values
    that ask for nothing (None always does) and what to do instead.
    """

    supported: frozenset[str]
    refused: Mapping[str, tuple[tuple[Any, ...], str]] = field(default_factory=dict)

    def read(self, request: Mapping[str, Any]) -> JsonFields:
        """Return the fields of a request, those of `extra_body` among them as OpenAI's client does.

        Errors: ConfigValueError for what JSON cannot carry; UnsupportedFieldsError.
        """
        fields = JsonFields(jsonable(request, "request"), "request", error=ConfigValueError)
        extra = fields.object("extra_body")
        outside = [name for name in _OUTSIDE_EXTRA_BODY if name in extra.data]
        if outside:
            raise ConfigValueError(
                f"{extra.where(outside[0])} is given, but belongs into the request itself."
            )
        merged = {**fields.data, **extra.data}
        self._refuse(merged)
        return JsonFields(merged, "request", error=ConfigValueError)

    def unknown(self, fields: JsonFields) -> tuple[str, ...]:
        """Return the names that neither OpenAI nor WebLLM nor we have."""
        known = self.supported | self.refused.keys() | WITHOUT_EFFECT
        return tuple(name for name in fields.data if name not in known)

    def _refuse(self, data: Mapping[str, Any]) -> None:
        given = [
            name
            for name, (neutral, _) in self.refused.items()
            if data.get(name) is not None and not any(data[name] == value for value in neutral)
        ]
        if given:
            remedies = " ".join(dict.fromkeys(self.refused[name][1] for name in given))
            raise UnsupportedFieldsError(
                f"request: {', '.join(given)} {'is' if len(given) == 1 else 'are'} not supported. "
                f"{remedies}"
            )


LEAVE_OUT = "Leave such fields out, or set them to null."
USE_TOOLS = "Use tools and tool_choice instead of functions and function_call."

CHAT_FIELDS = KnownFields(
    SAMPLING_FIELDS
    | {
        "chat_template_kwargs",
        "enable_thinking",
        "max_completion_tokens",
        "messages",
        "parallel_tool_calls",
        "prediction",
        "reasoning_effort",
        "resumable",
        "tool_choice",
        "tools",
    },
    {
        "audio": ((), LEAVE_OUT),
        "function_call": (("none", "auto"), USE_TOOLS),
        "functions": (([],), USE_TOOLS),
        "modalities": ((["text"],), LEAVE_OUT),
        "moderation": ((), LEAVE_OUT),
        "verbosity": (("medium",), LEAVE_OUT),
        "web_search_options": ((), LEAVE_OUT),
    },
)

COMPLETION_FIELDS = KnownFields(
    SAMPLING_FIELDS | {"best_of", "echo", "prompt"},
    {
        "resumable": (({"enabled": False},), LEAVE_OUT),
        "suffix": ((), "A model continues its prompt; leave suffix out."),
    },
)

EMBEDDING_FIELDS = KnownFields(
    frozenset(("dimensions", "encoding_format", "extra_body", "input", "model"))
)
