"""`ApiObject`, what every response is on both sides of the worker border.

Runs on CPython, Pyodide and MicroPython from one source, so it imports nothing that MicroPython
lacks (`typing` among them) and keeps annotations unevaluated.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

# Fields of OpenAI's response types that a response may leave out: they read as None, while any
# other name is a mistake of the caller and raises AttributeError.
OPTIONAL_FIELDS = frozenset(
    (
        "accepted_prediction_tokens",
        "annotations",
        "arguments",
        "audio",
        "bytes",
        "cached_tokens",
        "choices",
        "completion_tokens",
        "completion_tokens_details",
        "content",
        "created",
        "data",
        "delta",
        "embedding",
        "extra",
        "finish_reason",
        "function",
        "function_call",
        "id",
        "index",
        "latency_breakdown",
        "logprob",
        "logprobs",
        "message",
        "model",
        "name",
        "object",
        "parsed",
        "prompt_tokens",
        "prompt_tokens_details",
        "reasoning_content",
        "reasoning_tokens",
        "refusal",
        "rejected_prediction_tokens",
        "role",
        "service_tier",
        "system_fingerprint",
        "text",
        "text_offset",
        "token",
        "token_logprobs",
        "tokens",
        "tool_calls",
        "top_logprobs",
        "total_tokens",
        "type",
        "usage",
    )
)


class ApiObject:
    """One JSON object of a request or response, with its fields as attributes and as items.

    `chunk.choices[0].delta.content` and `chunk["choices"][0]["delta"]["content"]` are the same
    value. Nested dicts are ApiObjects too. Optional OpenAI fields that are absent read as None as
    attributes; as items they raise KeyError. Fields can be set either way.
    """

    _fields: "dict[str, Any]"

    def __init__(self, fields: "Mapping[str, Any]") -> None:
        object.__setattr__(self, "_fields", {key: _wrap(fields[key]) for key in fields})

    def __getattr__(self, name: str) -> "Any":
        if name == "_fields":  # a copy under construction has none yet
            raise AttributeError(name)
        if name in self._fields:
            return self._fields[name]
        if name in OPTIONAL_FIELDS:
            return None
        raise AttributeError(f"no field '{name}'; this object has {sorted(self._fields)}")

    def __setattr__(self, name: str, value: "Any") -> None:
        self._fields[name] = _wrap(value)

    def __getitem__(self, name: str) -> "Any":
        return self._fields[name]

    def __setitem__(self, name: str, value: "Any") -> None:
        self._fields[name] = _wrap(value)

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> "Iterator[str]":
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        return bool(plain(self) == plain(other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ApiObject({self.to_dict()!r})"

    def keys(self) -> "Iterator[str]":
        """Return the names of the fields that are present."""
        return iter(self._fields)

    def get(self, name: str, default: "Any" = None) -> "Any":
        """Return a field, or `default` when it is absent."""
        return self._fields.get(name, default)

    def to_dict(self) -> "dict[str, Any]":
        """Return the object as plain dicts and lists, which share nothing with it."""
        return {key: plain(value) for key, value in self._fields.items()}

    def model_dump(self) -> "dict[str, Any]":
        """Return `to_dict()`, under the name that the OpenAI client has for it."""
        return self.to_dict()


def plain(value: "Any") -> "Any":
    """Return `value` with every ApiObject, list and tuple in it as plain dicts and lists."""
    if isinstance(value, ApiObject):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _wrap(value: "Any") -> "Any":
    if isinstance(value, dict):
        return ApiObject(value)
    if isinstance(value, (list, tuple)):
        return [_wrap(item) for item in value]
    return value
