"""The grammars of tool calls in xgrammar itself: what they take, and what comes of random draws."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from py_engine.output import TOOL_CALL_FORMATS, MessageParser
from tests.support.engine_worker import EngineWorker
from tests.support.tokenizer_files import tokenizer_json

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 8},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
                "unit": {"$ref": "#/$defs/unit"},
            },
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {"unit": {"enum": ["°C", "°F"]}},
        },
    },
}
NOW = {
    "type": "function",
    "function": {"name": "now", "parameters": {"type": "object", "properties": {}}},
}
TURN = {
    "type": "function",
    "function": {
        "name": "turn-on",
        "parameters": {
            "type": "object",
            "properties": {"light": {"type": "boolean"}, "level": {"type": "integer"}},
        },
    },
}
TOOLS = [WEATHER, NOW, TURN]
NAMES = frozenset(tool["function"]["name"] for tool in TOOLS)

H_WEATHER = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call>'
H_NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
L_WEATHER = '{"name": "get_weather", "parameters": {"city": "Köln", "unit": "°C"}}'
M_WEATHER = '{"name": "get_weather", "arguments": {"city": "Köln", "days": 3}}'
P_WEATHER = 'get_weather(city="Köln", days=3, unit="°C")'

# (format, required, parallel, what is taken, what is not)
CASES: list[tuple[str, bool, bool, list[str], list[str]]] = [
    (
        "hermes",
        True,
        True,
        [H_WEATHER, f"{H_WEATHER}\n{H_NOW}"],
        ["", "Hi", f"Hi {H_NOW}", f"{H_NOW} Hi", H_NOW.replace("now", "unknown")],
    ),
    ("hermes", True, False, [H_WEATHER, H_NOW], [f"{H_WEATHER}\n{H_NOW}"]),
    (
        "hermes",
        False,
        True,
        ["", "Hi <tool", H_NOW, f"Hi {H_NOW} and {H_WEATHER}."],
        ["<tool_call>x", H_WEATHER.replace("city", "town"), H_NOW.replace("{}", '{"a": 1}')],
    ),
    ("hermes", False, False, ["Hi", f"Hi {H_NOW}"], [f"{H_NOW}\n{H_NOW}"]),
    ("llama3_json", True, True, [L_WEATHER], ["", "Hi", f"{L_WEATHER}; {L_WEATHER}"]),
    (
        "llama3_json",
        False,
        True,
        ["", "Hi {", "Köln\r\n[", L_WEATHER],
        ["{", '\n{"a"', '{"answer": 42}', L_WEATHER.replace("°C", "K")],
    ),
    ("mistral", True, True, [f"[{M_WEATHER}]", f"[{M_WEATHER}, {M_WEATHER}]"], ["[]", M_WEATHER]),
    ("mistral", True, False, [f"[{M_WEATHER}]"], [f"[{M_WEATHER}, {M_WEATHER}]"]),
    ("mistral_args", True, True, ['get_weather[ARGS]{"city": "x"}', "now[ARGS]{}"], ["now{}", ""]),
    (
        "pythonic",
        True,
        True,
        [
            f"[{P_WEATHER}]",
            f"[now(), {P_WEATHER}]",
            "[turn-on()]",
            "[turn-on(level=5)]",
            "[turn-on(light=true, level=5)]",
        ],
        ["[]", "now()", "[get_weather(days=3)]", "[turn-on(level=5, light=true)]", "[now(a=1)]"],
    ),
    ("pythonic", True, False, ["[now()]"], ["[now(), now()]"]),
    ("pythonic", False, True, ["", "Hi [x", f"[{P_WEATHER}]"], ["[x", " [1"]),
]


def tokenizer_text() -> str:
    """Return a tokenizer in which the tags are tokens and so is Mistral's special mark."""
    data = json.loads(tokenizer_json("qwen2"))
    last = max(entry["id"] for entry in data["added_tokens"])
    like = data["added_tokens"][0]
    added = (("<tool_call>", False), ("</tool_call>", False), ("[ARGS]", True))
    data["added_tokens"] += [
        {**like, "content": content, "special": special, "id": last + 1 + index}
        for index, (content, special) in enumerate(added)
    ]
    return json.dumps(data)


async def take(tokenizer: str, grammars: list[Any]) -> list[Any]:
    """Return for each grammar which of its texts it takes, whole."""
    from py_engine.errors import GrammarMatcherError
    from py_engine.grammar import GrammarSpec
    from py_engine.grammar.backend_browser import BrowserGrammarCompiler
    from py_engine.grammar.vocabulary import vocabulary_of
    from py_engine.tokenizer import tokenizer_from_json

    opened = await tokenizer_from_json(tokenizer)
    stop = opened.token_to_id("<|im_end|>")
    compiler = BrowserGrammarCompiler(vocabulary_of(opened, opened.vocab_size, frozenset({stop})))

    async def takes(grammar, text):
        matcher = await grammar.matcher()
        try:
            for part in text.split("[ARGS]") if "[ARGS]" in text else [text]:
                for token_id in opened.encode(part):
                    matcher.accept(token_id)
                if "[ARGS]" in text and part == text.split("[ARGS]")[0]:
                    for character in "[ARGS]":  # spelled out, as the mark itself is special
                        matcher.accept(opened.encode(character)[0])
            matcher.accept(stop)
            return matcher.is_terminated
        except GrammarMatcherError:
            return False
        finally:
            matcher.close()

    found = []
    for spec, texts in grammars:
        grammar = await compiler.compile(GrammarSpec(*spec))
        found.append([await takes(grammar, text) for text in texts])
    compiler.destroy()
    return found


async def draw(tokenizer: str, specs: list[Any], seed: int, count: int, limit: int) -> list[Any]:
    """Return random replies under each grammar, None for those that did not end in time."""
    import random

    from py_engine.grammar import GrammarSpec
    from py_engine.grammar.backend_browser import BrowserGrammarCompiler
    from py_engine.grammar.vocabulary import vocabulary_of
    from py_engine.tokenizer import tokenizer_from_json

    opened = await tokenizer_from_json(tokenizer)
    stop = opened.token_to_id("<|im_end|>")
    compiler = BrowserGrammarCompiler(vocabulary_of(opened, opened.vocab_size, frozenset({stop})))
    rng = random.Random(seed)
    closing = [opened.token_to_id(text) for text in ('"', "}", "]", ")", "</tool_call>")]

    async def reply(grammar):
        matcher, ids = await grammar.matcher(), []
        while not matcher.is_terminated and len(ids) < limit:
            words = int.from_bytes((await matcher.mask()).to_bytes(), "little")
            allowed = [i for i in range(opened.vocab_size) if words >> i & 1]
            preferred = [i for i in (stop, *closing) if i in allowed] if len(ids) > 60 else []
            ids.append(preferred[0] if preferred else rng.choice(allowed))
            matcher.accept(ids[-1])
        ended = matcher.is_terminated
        matcher.close()
        return opened.decode(ids) if ended else None

    found = []
    for spec in specs:
        grammar = await compiler.compile(GrammarSpec(*spec))
        found.append([await reply(grammar) for _ in range(count)])
    compiler.destroy()
    return found


def spec_of(form: str, required: bool, parallel: bool) -> list[Any]:
    spec = TOOL_CALL_FORMATS[form].grammar(TOOLS, required=required, parallel=parallel)
    assert spec is not None
    return [spec.kind, spec.text, spec.strict]


def test_grammars_take_calls_and_nothing_else(engine_worker: EngineWorker) -> None:
    grammars = [
        [spec_of(form, required, parallel), [*good, *bad]]
        for form, required, parallel, good, bad in CASES
    ]
    found = engine_worker.run(take, tokenizer=tokenizer_text(), grammars=grammars)
    for (form, required, parallel, good, bad), taken in zip(CASES, found, strict=True):
        expected = [True] * len(good) + [False] * len(bad)
        assert taken == expected, (form, required, parallel, [*good, *bad])


@pytest.mark.parametrize("parallel", [True, False])
def test_random_draws_under_a_grammar_are_calls(
    engine_worker: EngineWorker, parallel: bool
) -> None:
    seed = random.randrange(10**6)
    specs = [spec_of(form, True, parallel) for form in TOOL_CALL_FORMATS]
    found = engine_worker.run(
        draw, tokenizer=tokenizer_text(), specs=specs, seed=seed, count=6, limit=250
    )
    for form, replies in zip(TOOL_CALL_FORMATS.values(), found, strict=True):
        ended = [reply for reply in replies if reply is not None]
        assert ended, (form.name, seed)
        for reply in ended:
            parser = MessageParser(
                reasoning=False,
                starts_in_reasoning=False,
                tools=form,
                tool_names=NAMES,
                stream=False,
            )
            parser.put(form.forced_prefix)
            deltas = [*parser.put(reply), *parser.finish()]
            assert not any("content" in delta for delta in deltas), (seed, reply)
            calls = [delta["tool_calls"][0] for delta in deltas]
            assert len([call for call in calls if "id" in call]) >= 1, (seed, reply)
            if not parallel:
                assert len(calls) == 2
            for call in calls[1::2]:
                assert isinstance(json.loads(call["function"]["arguments"]), dict), (seed, reply)
