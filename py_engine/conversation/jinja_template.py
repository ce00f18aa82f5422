"""Hugging Face chat templates, rendered by Jinja2 exactly as transformers 5 renders them.

Templates come from strangers, so they run in Jinja2's immutable sandbox and see only plain data.
Importing this module imports Jinja2, which takes a while in Pyodide; only models that bring a
template need it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from jinja2 import Template, TemplateError, nodes, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from py_engine.errors import ChatTemplateError

# The names that a message's reasoning goes by; templates read the first, gpt-oss's the second.
_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")

_PROBE_NAME = "probe_of_tools"
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": _PROBE_NAME,
        "description": "Probe",
        "parameters": {"type": "object", "properties": {"x": {"type": "string"}}, "required": []},
    },
}
_PROBE_USER = {"role": "user", "content": "Hello"}
_PROBE_MESSAGES = ([_PROBE_USER], [{"role": "system", "content": "Hello"}, _PROBE_USER])

Message = Mapping[str, Any]


class ChatTemplate:
    """A model's Jinja templates by name: "default", and maybe "tool_use" for prompts with tools.

    `variables` are the tokens that they may use: `bos_token`, `eos_token`, ...
    """

    prefix_token_ids: tuple[int, ...] = ()  # the text has them

    def __init__(
        self, sources: Mapping[str, str], variables: Mapping[str, Any] | None = None
    ) -> None:
        self._sources = sources
        self._variables = {"documents": None, **(variables or {})}
        self.source = "\n".join(sources.values())

    @cached_property
    def supports_tools(self) -> bool:
        """Whether a tool's name shows in a prompt, which is tried."""
        return any(map(self._shows_probe, _PROBE_MESSAGES))

    def _shows_probe(self, messages: Sequence[Message]) -> bool:
        try:
            return _PROBE_NAME in self.pieces(messages, tools=[_PROBE_TOOL])[0]
        except ChatTemplateError:
            return False

    def pieces(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **template_args: Any,
    ) -> list[str]:
        """Return the prompt as one string, to be tokenized at once as transformers does.

        `messages` are plain data. `template_args` are further variables, such as
        `enable_thinking`.
        Errors: ChatTemplateError when the template refuses the messages or is itself wrong.
        """
        try:
            text = _compiled(self._source(bool(tools))).render(
                messages=[_with_reasoning(message) for message in messages],
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                **{**self._variables, **template_args},
            )
        except Exception as error:  # a template can fail in any way that Python can
            raise _template_error(error) from error
        return [text]

    def _source(self, has_tools: bool) -> str:
        if has_tools and "tool_use" in self._sources:
            return self._sources["tool_use"]
        return self._sources.get("default") or next(iter(self._sources.values()))


def _template_error(error: Exception) -> ChatTemplateError:
    line = getattr(error, "lineno", None)
    where = "chat_template" if line is None else f"chat_template, line {line}"
    kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
    return ChatTemplateError(
        f"{where}: {kind}{error}. Change the messages as it asks (their roles, order and content), "
        "or give conv_template in chat_opts to use another template."
    )


def _with_reasoning(message: Message) -> Message:
    for name in _REASONING_FIELDS:
        reasoning = message.get(name)
        if reasoning is not None:
            return {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return message


@lru_cache(maxsize=32)
def _compiled(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _DictFactory()
    environment.globals["namespace"] = _PlainNamespace
    return environment.from_string(source)


class _GenerationBlock(Extension):
    """`{% generation %}`: marks the assistant's text for training; it renders as its body."""

    tags = {"generation"}  # noqa: RUF012  Jinja2 declares it as an instance variable

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    @pass_eval_context
    def _render(self, _context: nodes.EvalContext, caller: Callable[[], str]) -> str:
        return caller()


class _DictFactory:
    """`dict(...)` and `dict.fromkeys(...)`, without the class itself to climb from."""

    def __call__(self, *args: Any, **fields: Any) -> dict[Any, Any]:
        return dict(*args, **fields)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _PlainNamespace(Namespace):
    """`namespace(...)`, without names that begin with an underscore."""

    # As in Jinja2 itself, `self` is not a parameter, so that it can be a name in the namespace.
    def __init__(*args: Any, **fields: Any) -> None:
        attributes = dict(*args[1:], **fields)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}: names with an underscore first")


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja2's own filter escapes HTML characters.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
