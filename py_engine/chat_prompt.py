"""A chat request as the model sees it: the prompt, and what its reply must look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.chat_images import for_template, image_marks
from py_engine.errors import CustomResponseFormatError, UnsupportedToolsError
from py_engine.grammar import GrammarSpec
from py_engine.grammar.alternatives import either
from py_engine.loaded_model import LoadedModel
from py_engine.models.images import HeldImage
from py_engine.output import (
    THINK_BEGIN,
    THINK_END,
    TOOL_CALL_FORMATS,
    MessageParser,
    ToolCallFormat,
)


@dataclass(frozen=True)
class ChatPrompt:
    """The prompt of a chat request, for each of its choices.

    `grammar` binds the reply, from `grammar_after` on where that is not empty. The reply begins
    with `forced_prefix`, which is the end of the prompt. `kept_special_ids` are special tokens that
    the reply's text shows. `images` are held for as long as this is.
    """

    token_ids: Sequence[int]
    grammar: GrammarSpec | None
    grammar_after: str
    forced_prefix: str
    kept_special_ids: frozenset[int]
    knows_reasoning: bool
    opens_reasoning: bool
    tool_call_format: ToolCallFormat | None
    tool_names: frozenset[str]
    parallel_tool_calls: bool
    images: Sequence[HeldImage] = ()

    def parser(self, *, stream: bool) -> MessageParser:
        """Return a parser for one choice; begin it with `forced_prefix`."""
        return MessageParser(
            reasoning=self.knows_reasoning,
            starts_in_reasoning=self.opens_reasoning,
            tools=self.tool_call_format,
            tool_names=self.tool_names,
            parallel_tool_calls=self.parallel_tool_calls,
            stream=stream,
        )


def chat_prompt(
    model: LoadedModel, request: ChatCompletionRequest, images: Sequence[HeldImage] = ()
) -> ChatPrompt:
    """Return the prompt of a checked request with its images.

    Errors: ChatTemplateError, UnsupportedRoleError, UnsupportedToolsError,
    CustomResponseFormatError.
    """
    tools, form = _tools(model, request)
    arguments = dict(request.template_args)
    if request.enable_thinking is not None:
        arguments["enable_thinking"] = request.enable_thinking
    prompt = model.renderer.render(
        for_template(request.messages),
        tools=tools or None,
        images=[image.ids for image in images],
        image_marks=image_marks(model) if images else None,
        **arguments,
    )
    token_ids, forced_prefix = prompt.token_ids, ""
    if form is not None and request.tool_choice.is_forced and form.forced_prefix:
        # A reply that must begin with a call cannot think first.
        end_of_thought = f"{THINK_END}\n\n" if prompt.opens_reasoning else ""
        forced_prefix = end_of_thought + form.forced_prefix
        token_ids = [*token_ids, *model.tokenizer.encode(forced_prefix)]
    knows_reasoning = model.renderer.knows_reasoning
    marks = (THINK_BEGIN, THINK_END) if knows_reasoning else ()
    kept = map(model.tokenizer.token_to_id, (*marks, *(form.special_tokens if form else ())))
    return ChatPrompt(
        token_ids=token_ids,
        grammar=_grammar(request, tools, form),
        grammar_after=THINK_END if prompt.opens_reasoning and not forced_prefix else "",
        forced_prefix=forced_prefix,
        kept_special_ids=frozenset(token for token in kept if token is not None),
        knows_reasoning=knows_reasoning,
        opens_reasoning=prompt.opens_reasoning,
        tool_call_format=form,
        tool_names=frozenset(tool["function"]["name"] for tool in tools),
        parallel_tool_calls=request.parallel_tool_calls,
        images=images,
    )


def _tools(
    model: LoadedModel, request: ChatCompletionRequest
) -> tuple[Sequence[Mapping[str, Any]], ToolCallFormat | None]:
    """Return the tools that the prompt shows, and how the model calls them."""
    if not request.tools or request.tool_choice.mode == "none":
        return (), None
    form = model.renderer.tool_call_format
    if form is None or not model.renderer.supports_tools:
        raise UnsupportedToolsError(
            "request: tools are given, but this model's chat template renders none, or its way of "
            "calling them is unknown. Choose a model for tool calling, name its `tool_call_format`"
            f" in chat_opts ({', '.join(TOOL_CALL_FORMATS)}), or set tool_choice to 'none'."
        )
    return request.tools, form


def _grammar(
    request: ChatCompletionRequest,
    tools: Sequence[Mapping[str, Any]],
    form: ToolCallFormat | None,
) -> GrammarSpec | None:
    """Return what the reply must look like: a call, the requested format, or either."""
    if form is None:
        return request.grammar
    choice = request.tool_choice
    if choice.mode == "named":
        tools = [tool for tool in tools if tool["function"]["name"] == choice.name]
    is_parallel = request.parallel_tool_calls and choice.mode != "named"
    has_format = request.grammar is not None
    calls = form.grammar(tools, required=choice.is_forced or has_format, parallel=is_parallel)
    if choice.is_forced or request.grammar is None:
        return calls
    if calls is None or form.forced_prefix:
        raise CustomResponseFormatError(
            "request: response_format and tools are both given, but the calls of this model begin "
            "with a token that no format can allow. Leave response_format out, or set tool_choice "
            "to 'none' or 'required'."
        )
    return either(calls, request.grammar)
