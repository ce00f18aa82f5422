"""Messages to prompt tokens: the model's chat template, and where its replies end.

A Hugging Face chat template is used when the model brings one, unless `overrides` or `chat_opts`
name a `conv_template`; otherwise MLC's `conv_template` is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from py_engine.conversation.conv_template import ConvTemplate
from py_engine.errors import (
    ChatTemplateError,
    ConfigurationFieldError,
    MissingFileError,
    ModelFileFormatError,
)
from py_engine.json_fields import JsonFields

if TYPE_CHECKING:
    from py_engine.chat_config import ChatConfig
    from py_engine.storage.source import ModelSource
    from py_engine.tokenizer import Tokenizer

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"

Message = Mapping[str, Any]


class PromptTemplate(Protocol):
    """What turns messages into text; `prefix_token_ids` go before it."""

    @property
    def prefix_token_ids(self) -> tuple[int, ...]: ...

    def pieces(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None,
        **template_args: Any,
    ) -> list[str]:
        """Return the strings of the prompt, each to be tokenized by itself."""
        ...


class PromptRenderer:
    """Renders messages for one model.

    `stop_token_ids` and `stop_strings` end a reply. `template` may be None (a base model): then
    only `render` fails.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: PromptTemplate | None,
        stop_token_ids: frozenset[int],
        stop_strings: tuple[str, ...] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self.stop_token_ids = stop_token_ids
        self.stop_strings = stop_strings

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **template_args: Any,
    ) -> list[int]:
        """Return the prompt's token ids.

        Special tokens are parsed wherever they stand in the text, in users' messages too, as
        transformers does by default: text is encoded piece by piece here, which is the place to
        encode users' text without them. Errors: ChatTemplateError, UnsupportedRoleError.
        """
        if self._template is None:
            raise ChatTemplateError(
                "The model has neither a chat_template nor a conv_template, so it is no chat "
                "model. Give conv_template in chat_opts, or choose a chat model."
            )
        token_ids = list(self._template.prefix_token_ids)
        for piece in self._template.pieces(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, **template_args
        ):
            token_ids += self._tokenizer.encode(piece)
        return token_ids


async def load_prompt_renderer(
    source: ModelSource, config: ChatConfig, tokenizer: Tokenizer
) -> PromptRenderer:
    """Read the template and the stop tokens of a model.

    Errors: ModelFileFormatError, ConfigurationFieldError for a conv_template of `overrides` or
    `chat_opts`, and those of the source except MissingFileError, as both files may be absent.
    """
    tokenizer_config = await _tokenizer_config(source, config)
    conv_template = _conv_template(config)
    template: PromptTemplate | None = conv_template
    if conv_template is None or config.overridden.isdisjoint({"conv_template", "conv_config"}):
        sources = await _chat_templates(source, config, tokenizer_config)
        if sources:
            from py_engine.conversation.jinja_template import ChatTemplate

            template = ChatTemplate(sources, _special_tokens(tokenizer_config))
    stop_token_ids = _stop_token_ids(config, tokenizer_config, tokenizer)
    if conv_template is None:
        return PromptRenderer(tokenizer, template, stop_token_ids)
    stop_token_ids |= frozenset(conv_template.stop_token_ids)
    return PromptRenderer(tokenizer, template, stop_token_ids, conv_template.stop_str)


def _conv_template(config: ChatConfig) -> ConvTemplate | None:
    """Return the `conv_template` with `conv_config` over it, or None."""
    template = config.conv_template
    # Old files have the name of a template in MLC's registry instead of the template.
    data = {**(template if isinstance(template, Mapping) else {}), **config.conv_config}
    if not data:
        return None
    is_ours = config.overridden.isdisjoint({"conv_template", "conv_config"})
    source = config.file if is_ours else "chat_opts"
    error = ModelFileFormatError if is_ours else ConfigurationFieldError
    return ConvTemplate.from_fields(JsonFields(data, source, path="conv_template", error=error))


async def _tokenizer_config(source: ModelSource, config: ChatConfig) -> Mapping[str, Any]:
    if not _may_exist(TOKENIZER_CONFIG_FILE, config):
        return {}
    try:
        data = await source.read_json(TOKENIZER_CONFIG_FILE)
    except MissingFileError:
        return {}
    return JsonFields(data, TOKENIZER_CONFIG_FILE).data


async def _chat_templates(
    source: ModelSource, config: ChatConfig, tokenizer_config: Mapping[str, Any]
) -> dict[str, str]:
    """Return the Jinja templates by name ("default" and maybe "tool_use")."""
    if _may_exist(TEMPLATE_FILE, config):
        try:
            return {"default": await source.read_text(TEMPLATE_FILE)}
        except MissingFileError:
            pass  # most models have the template in tokenizer_config.json
    template = tokenizer_config.get("chat_template")
    if template is None or isinstance(template, str):
        return {"default": template} if template else {}
    named = JsonFields(tokenizer_config, TOKENIZER_CONFIG_FILE).objects("chat_template")
    return {entry.string("name"): entry.string("template") for entry in named}


def _may_exist(path: str, config: ChatConfig) -> bool:
    return not config.tokenizer_files or path in config.tokenizer_files


def _special_tokens(tokenizer_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables that transformers gives a template: `bos_token` and so on."""
    tokens = {
        name: _token_text(value)
        for name, value in tokenizer_config.items()
        if name.endswith("_token") and _token_text(value) is not None
    }
    extra = tokenizer_config.get("additional_special_tokens")
    if isinstance(extra, list):
        tokens["additional_special_tokens"] = [_token_text(token) for token in extra]
    return tokens


def _token_text(value: Any) -> Any:
    """Return the text of a token, which old files give as an object; None for other values."""
    text = value.get("content") if isinstance(value, Mapping) else value
    return text if isinstance(text, str) else None


def _stop_token_ids(
    config: ChatConfig, tokenizer_config: Mapping[str, Any], tokenizer: Tokenizer
) -> frozenset[int]:
    """Return the end-of-text ids; the file's default for `eos_token_id` is no statement."""
    stated = config.eos_token_ids if config.data.get("eos_token_id") is not None else ()
    eos_token = _token_text(tokenizer_config.get("eos_token"))
    eos_id = None if eos_token is None else tokenizer.token_to_id(eos_token)
    return frozenset(stated) if eos_id is None else frozenset((*stated, eos_id))
