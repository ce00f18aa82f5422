"""A model's prompts: messages through its template to token ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from py_engine.conversation.control_tokens import ControlTokens
from py_engine.errors import ChatTemplateError
from py_engine.output import THINK_BEGIN, THINK_END, ToolCallFormat

if TYPE_CHECKING:
    from py_engine.tokenizer import Tokenizer

Message = Mapping[str, Any]
Tools = Sequence[Mapping[str, Any]]

# How a thought that a template has opened is closed again, as Qwen's and WebLLM's empty ones are.
_NO_THOUGHT = f"\n{THINK_END}\n\n"

# Some vocabularies (DeepSeek's) do not call the tokens special that begin a turn. Those of thoughts
# and tools are written otherwise: in messages they may stand for themselves.
_TURN_MARK = re.compile("<[|\uff5c].*[|\uff5c]>", re.DOTALL)


class PromptTemplate(Protocol):
    """What turns messages into text; `prefix_token_ids` go before it.

    `source` is a Jinja template's text, None for others.
    """

    @property
    def prefix_token_ids(self) -> tuple[int, ...]: ...

    @property
    def source(self) -> str | None: ...

    @property
    def supports_tools(self) -> bool:
        """Whether `tools` show in the text."""
        ...

    def pieces(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        tools: Tools | None,
        **template_args: Any,
    ) -> list[str]:
        """Return the strings of the prompt, each to be tokenized by itself."""
        ...


@dataclass(frozen=True)
class Prompt:
    """`opens_reasoning` says that the prompt ends inside a think block."""

    token_ids: list[int]
    opens_reasoning: bool = False


@dataclass(frozen=True)
class ImageMarks:
    """Texts of the tokens around and for an image, and the id that each of its rows has there.

    A template writes `begin` where an image is.
    """

    begin: str
    soft: str
    end: str
    soft_id: int

    def put_into(self, text: str) -> str:
        """Return a rendered prompt as Gemma3Processor has it, with one row for each image."""
        return text.replace(self.begin, f"\n\n{self.begin}{self.soft}{self.end}\n\n")


class PromptRenderer:
    """Renders messages for one model.

    `stop_token_ids` and `stop_strings` end a reply. `template` may be None (a base model): then
    `render` fails. `tool_call_format` is how the model calls tools, where that is known.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: PromptTemplate | None,
        stop_token_ids: frozenset[int],
        stop_strings: tuple[str, ...] = (),
        tool_call_format: ToolCallFormat | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self.stop_token_ids = stop_token_ids
        self.stop_strings = stop_strings
        self.tool_call_format = tool_call_format

    @cached_property
    def supports_tools(self) -> bool:
        """Whether the template shows the model its tools."""
        return self._template is not None and self._template.supports_tools

    @cached_property
    def knows_reasoning(self) -> bool:
        """Whether the model may think in a block of its own, by its template or vocabulary."""
        source = None if self._template is None else self._template.source
        if source is not None and THINK_END in source:
            return True
        return None not in map(self._tokenizer.token_to_id, (THINK_BEGIN, THINK_END))

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Tools | None = None,
        images: Sequence[Sequence[int]] = (),
        image_marks: ImageMarks | None = None,
        **template_args: Any,
    ) -> Prompt:
        """Return the prompt.

        `images` are the ids that stand for each image of the messages, in their order, and
        `image_marks` is how the template's text has them.
        `template_args` are variables of the template, such as `enable_thinking`; with that false,
        a think block that the template opens nevertheless is closed. Special tokens count only
        where the template writes them: in messages, tools and `template_args` they are text.
        Errors: ChatTemplateError, UnsupportedRoleError.
        """
        if self._template is None:
            raise ChatTemplateError(
                "The model has neither a chat_template nor a conv_template, so it is no chat "
                "model. Give conv_template in chat_opts, or choose a chat model."
            )
        marked = self._control_tokens.mark(messages, tools, template_args)
        marked_messages, marked_tools, marked_args = marked.values
        pieces = self._template.pieces(
            marked_messages,
            add_generation_prompt=add_generation_prompt,
            tools=marked_tools,
            **marked_args,
        )
        opens_reasoning = add_generation_prompt and _opens_reasoning(pieces)
        if opens_reasoning and template_args.get("enable_thinking") is False:
            pieces[-1] = pieces[-1].rstrip() + _NO_THOUGHT
            opens_reasoning = False
        token_ids = list(self._template.prefix_token_ids)
        for piece in pieces:
            text = piece if image_marks is None or not images else image_marks.put_into(piece)
            token_ids += self._tokenizer.encode_parts(marked.parts(text))
        if image_marks is not None and images:
            token_ids = _with_images(token_ids, image_marks.soft_id, images)
        return Prompt(token_ids, opens_reasoning)

    @cached_property
    def _control_tokens(self) -> ControlTokens:
        tokenizer = self._tokenizer
        return ControlTokens(
            token
            for index in tokenizer.added_ids
            if (token := tokenizer.token(index) or "")
            and (index in tokenizer.special_ids or _TURN_MARK.fullmatch(token))
        )


def _with_images(
    token_ids: Sequence[int], soft_id: int, images: Sequence[Sequence[int]]
) -> list[int]:
    """Replace each `soft_id` by the ids of the next image."""
    if token_ids.count(soft_id) != len(images):
        raise ChatTemplateError(
            f"The messages have {len(images)} images, but the chat_template has room for "
            f"{token_ids.count(soft_id)}. Use the model's own template."
        )
    rest = iter(images)
    return [
        i for token_id in token_ids for i in (next(rest) if token_id == soft_id else [token_id])
    ]


def _opens_reasoning(pieces: Sequence[str]) -> bool:
    return bool(pieces) and pieces[-1].rstrip().endswith(THINK_BEGIN)
