"""MLC's `conv_template`: prompts put together from role strings and separators, as WebLLM does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from py_engine.errors import UnsupportedRoleError
from py_engine.json_fields import JsonFields

_PLACEHOLDERS = {
    "user": "{user_message}",
    "assistant": "{assistant_message}",
    "tool": "{tool_message}",
}

_EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class ConvTemplate:
    """The fields of a `conv_template`. `seps[i % len(seps)]` ends message i (0 is the first one
    after the system message); `roles` gives each role's string.
    """

    system_template: str
    system_message: str
    roles: Mapping[str, str]
    role_templates: Mapping[str, str]
    seps: tuple[str, ...]
    role_content_sep: str
    role_empty_sep: str
    stop_str: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    system_prefix_token_ids: tuple[int, ...]
    add_role_after_system_message: bool
    render_empty_system_message: bool

    @staticmethod
    def from_fields(fields: JsonFields) -> ConvTemplate:
        """Read a `conv_template`. Errors: those of `fields`, naming the field."""
        roles, role_templates = fields.object("roles"), fields.object("role_templates")
        for name in ("user", "assistant"):
            roles.string(name)
        seps = fields.strings("seps")
        if not seps:
            raise fields.invalid("seps", "an array of one or two strings")
        return ConvTemplate(
            system_template=fields.string("system_template", "{system_message}"),
            system_message=fields.string("system_message", ""),
            roles={name: roles.string(name) for name in roles.data if name in roles},
            role_templates={
                name: role_templates.string(name)
                for name in role_templates.data
                if name in role_templates
            },
            seps=seps,
            role_content_sep=fields.string("role_content_sep", ": "),
            role_empty_sep=fields.string("role_empty_sep", ": "),
            stop_str=_stop_strings(fields),
            stop_token_ids=fields.integers("stop_token_ids", ()),
            system_prefix_token_ids=fields.integers("system_prefix_token_ids", ()),
            add_role_after_system_message=fields.boolean("add_role_after_system_message", True),
            render_empty_system_message=fields.boolean("render_empty_system_message", True),
        )

    source: ClassVar[None] = None
    supports_tools: ClassVar[bool] = False

    @property
    def prefix_token_ids(self) -> tuple[int, ...]:
        """The ids before all text."""
        return self.system_prefix_token_ids

    def pieces(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **template_args: Any,
    ) -> list[str]:
        """Return the prompt as the strings that WebLLM tokenizes one by one.

        `enable_thinking=False` puts an empty think block before the reply. `tools` and other
        arguments have no place in such a template and are left out.
        # differs: a message's `name` does not replace its role's string.
        Errors: UnsupportedRoleError for a role that `roles` lacks.
        """
        system, chat = self._split_system(messages)
        pieces = [system] if system else []
        for index, message in enumerate(chat):
            text = self._filled(message["role"], message.get("content") or "")
            is_bare = index == 0 and system and not self.add_role_after_system_message
            role = "" if is_bare else self._role(message["role"]) + self.role_content_sep
            pieces.append(role + text + self.seps[index % len(self.seps)])
        if add_generation_prompt:
            thought = _EMPTY_THOUGHT if template_args.get("enable_thinking") is False else ""
            pieces.append(self._role("assistant") + self.role_empty_sep + thought)
        return pieces

    def _split_system(
        self, messages: Sequence[Mapping[str, Any]]
    ) -> tuple[str, Sequence[Mapping[str, Any]]]:
        """Return the system prompt and the messages after it."""
        system_message = self.system_message
        if messages and messages[0]["role"] == "system":
            system_message, messages = messages[0]["content"], messages[1:]
        if not system_message and not self.render_empty_system_message:
            return "", messages
        return self.system_template.replace("{system_message}", system_message, 1), messages

    def _role(self, role: str) -> str:
        if role not in self.roles:
            raise UnsupportedRoleError(
                f"messages: role '{role}' has no place in the model's conv_template, which has "
                f"{', '.join(sorted(self.roles))}. Use one of these, or a model with that role."
            )
        return self.roles[role]

    def _filled(self, role: str, content: str) -> str:
        template = self.role_templates.get(role)
        if template is None:
            return content
        template = template.replace("{function_string}", "", 1)
        return template.replace(_PLACEHOLDERS.get(role, ""), content, 1)


def _stop_strings(fields: JsonFields) -> tuple[str, ...]:
    value = fields.value("stop_str")
    strings = (value,) if isinstance(value, str) else fields.strings("stop_str", ())
    return tuple(filter(None, strings))
