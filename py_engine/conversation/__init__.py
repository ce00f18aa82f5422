"""Messages to prompt tokens: the model's chat template, and where its replies end.

A Hugging Face chat template is used when the model brings one, unless `overrides` or `chat_opts`
name a `conv_template`; otherwise MLC's `conv_template` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from py_engine.conversation.conv_template import ConvTemplate
from py_engine.conversation.hermes_tools import HermesTemplate
from py_engine.conversation.renderer import ImageMarks, Prompt, PromptRenderer, PromptTemplate
from py_engine.errors import ConfigurationFieldError, ModelFileFormatError
from py_engine.json_fields import JsonFields, shown
from py_engine.output import TOOL_CALL_FORMATS, ToolCallFormat, detect_tool_call_format
from py_engine.storage.source import NOT_THERE

if TYPE_CHECKING:
    from py_engine.chat_config import ChatConfig
    from py_engine.storage.source import ModelSource
    from py_engine.tokenizer import Tokenizer

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"

__all__ = ["ImageMarks", "Prompt", "PromptRenderer", "PromptTemplate", "load_prompt_renderer"]


async def load_prompt_renderer(
    source: ModelSource, config: ChatConfig, tokenizer: Tokenizer
) -> PromptRenderer:
    """Read the template and the stop tokens of a model.

    Errors: ModelFileFormatError, ConfigurationFieldError for a conv_template or tool_call_format
    of `overrides` or `chat_opts`, and those of the source except MissingFileError, as both files
    may be absent.
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
    stop_strings: tuple[str, ...] = ()
    if conv_template is not None:
        stop_token_ids |= frozenset(conv_template.stop_token_ids)
        stop_strings = conv_template.stop_str
    form = _tool_call_format(config, template, tokenizer)
    if isinstance(template, ConvTemplate) and form is TOOL_CALL_FORMATS["hermes"]:
        template = HermesTemplate(template)
    return PromptRenderer(tokenizer, template, stop_token_ids, stop_strings, form)


def _tool_call_format(
    config: ChatConfig, template: PromptTemplate | None, tokenizer: Tokenizer
) -> ToolCallFormat | None:
    """Return the format that `tool_call_format` names, else the one that the model shows."""
    name = config.data.get("tool_call_format")
    if name is None:
        source = None if template is None else template.source
        return detect_tool_call_format(source, tokenizer.token_to_id)
    if not isinstance(name, str) or name not in TOOL_CALL_FORMATS:
        is_ours = "tool_call_format" not in config.overridden
        error = ModelFileFormatError if is_ours else ConfigurationFieldError
        raise error(
            f"{config.file if is_ours else 'chat_opts'}: tool_call_format is {shown(name)}, but "
            f"must be one of {', '.join(TOOL_CALL_FORMATS)}, or left out to be detected."
        )
    return TOOL_CALL_FORMATS[name]


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
    except NOT_THERE:
        return {}
    return JsonFields(data, TOKENIZER_CONFIG_FILE).data


async def _chat_templates(
    source: ModelSource, config: ChatConfig, tokenizer_config: Mapping[str, Any]
) -> dict[str, str]:
    """Return the Jinja templates by name ("default" and maybe "tool_use")."""
    if _may_exist(TEMPLATE_FILE, config):
        try:
            return {"default": await source.read_text(TEMPLATE_FILE)}
        except NOT_THERE:
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
