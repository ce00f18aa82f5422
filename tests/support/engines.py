"""MLCEngine over models that say one text, and requests for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from py_engine.engine import MLCEngine
from py_engine.tokenizer import tokenizer_from_json
from tests.support.fake_host import END, FakeHost, model_files
from tests.support.tokenizer_files import tokenizer_json

MESSAGES = [{"role": "user", "content": "Hi"}]
TEXT = "The quick brown fox jumps over the lazy dog"
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}<tool_call>{% endif %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ call.function.name }}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>{% endif %}"
    "{% endif %}"
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}},
        },
    }
    for name in ("weather", "time")
]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'


def ids_of(text: str) -> list[int]:
    """Return the ids that the fake host's tokenizer makes of a text."""
    return asyncio.run(tokenizer_from_json(tokenizer_json("gpt2"))).encode(text)


IDS = ids_of(TEXT)


class HostedEngine(MLCEngine):
    """An engine with its host at hand."""

    def __init__(self, engine_config: Any, host: FakeHost) -> None:
        super().__init__(engine_config, host=host)
        self.host = host


def host_of(*model_ids: str) -> FakeHost:
    """Return a host of models that say TEXT."""
    host = FakeHost(*model_ids)
    host.scripts = {model_id: [*IDS, END] for model_id in host.files}
    return host


async def engine_of(host: FakeHost, *load: str, **config: Any) -> HostedEngine:
    """Return an engine that has loaded these models of a host."""
    engine = HostedEngine({"app_config": host.app_config, **config}, host)
    if load:
        await engine.reload(load[0] if len(load) == 1 else list(load))
    return engine


async def engine_that_says(
    text: str, *, window: int = 2000, vocabulary: str = "", **config: Any
) -> HostedEngine:
    """Return an engine whose model answers everything with `text`, unless a grammar forbids it.

    `vocabulary` is the text of another tokenizer.json; the model's chat template is TEMPLATE.
    """
    vocabulary = vocabulary or tokenizer_json("gpt2")
    host = FakeHost("model")
    fields = {"context_window_size": window, "conv_template": None} | config
    names = ["tokenizer.json", "tokenizer_config.json"]
    host.files["model"] = model_files(**{"tokenizer_files": names} | fields) | {
        "tokenizer.json": vocabulary,
        "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE}),
    }
    tokenizer = await tokenizer_from_json(vocabulary)
    host.scripts["model"] = [*tokenizer.encode(text), END]
    return await engine_of(host, "model")


async def ask(engine: MLCEngine, **fields: Any) -> Any:
    """Ask for a reply to MESSAGES, unless the request has others."""
    return await engine.chat.completions.create(**{"messages": MESSAGES, **fields})


async def text_of(engine: MLCEngine, **fields: Any) -> str:
    """Return the text of a reply."""
    return str((await ask(engine, **fields)).choices[0].message.content)
