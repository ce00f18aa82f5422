"""Tool calls in a reply: each format, what is no call, and how it streams."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from py_engine.output import TOOL_CALL_FORMATS, detect_tool_call_format
from py_engine.output.call import MAX_DEPTH
from tests.support.replies import NAMES, Reply, cuts, deltas, make_parser, parse

KOELN = '{"city": "Köln \\"}<|\\u00e9", "days": [1, {"a": null}]}'
HERMES = f'<tool_call>\n{{"name": "get_weather", "arguments": {KOELN}}}\n</tool_call>'
HERMES_NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
LLAMA = f'{{"name": "get_weather", "parameters": {KOELN}}}'
LLAMA_NOW = '{"type": "function", "name": "now", "parameters": {}}'
WEATHER, NOW = ("get_weather", KOELN), ("now", "{}")

CALLS: dict[str, list[tuple[str, Reply]]] = {
    "hermes": [
        (HERMES, Reply(calls=[WEATHER])),
        (f"Let me see.\n\n{HERMES}\n{HERMES_NOW}", Reply("Let me see.", calls=[WEATHER, NOW])),
        (f"{HERMES_NOW} and\n{HERMES}", Reply("and", calls=[NOW, WEATHER])),
        (f"A\n{HERMES_NOW}\nB ", Reply("A\n\nB", calls=[NOW])),
        (HERMES.removesuffix("</tool_call>"), Reply(calls=[WEATHER])),
        (f"{HERMES.removesuffix('</tool_call>')}{HERMES_NOW}", Reply(calls=[WEATHER, NOW])),
        (HERMES.replace("}\n</", "\n</"), Reply(calls=[WEATHER])),  # its last brace is missing
        (
            '<tool_call>{"arguments":{"a":1},"name":"now"}</tool_call>',
            Reply(calls=[("now", '{"a":1}')]),
        ),
        ('<tool_call>{"name": "now"}</tool_call>', Reply(calls=[NOW])),
        ('<tool_call>{"name": "now", "arguments": null}</tool_call>', Reply(calls=[NOW])),
        (
            '<tool_call>{"name": "now", "arguments": "{\\"a\\": 1}"}</tool_call>',
            Reply(calls=[("now", '{"a": 1}')]),
        ),
    ],
    "llama3_json": [
        (LLAMA, Reply(calls=[WEATHER])),
        (f"\n {LLAMA}\n", Reply(calls=[WEATHER])),
        (f"{LLAMA}; {LLAMA_NOW};\n{LLAMA}", Reply(calls=[WEATHER, NOW, WEATHER])),
        (f"<|python_tag|>{LLAMA}", Reply(calls=[WEATHER])),
        (f"I look. <|python_tag|>{LLAMA}; {LLAMA_NOW}", Reply("I look.", calls=[WEATHER, NOW])),
        (f"{LLAMA_NOW} is what I call", Reply("is what I call", calls=[NOW])),
    ],
    "mistral": [
        (f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {KOELN}}}]', Reply(calls=[WEATHER])),
        (
            f'Ok. [TOOL_CALLS][{{"name": "now", "arguments": {{}}, "id": "123456789"}},\n '
            f'{{"name": "get_weather", "arguments": {KOELN}}}] ',
            Reply("Ok.", calls=[NOW, WEATHER]),
        ),
        (f"[TOOL_CALLS]get_weather[ARGS]{KOELN}", Reply(calls=[WEATHER])),
        (
            f"[TOOL_CALLS]now[CALL_ID]abc123def[ARGS]{{}}[TOOL_CALLS]get_weather{KOELN}",
            Reply(calls=[NOW, WEATHER]),
        ),
        ('[TOOL_CALLS]{"name": "now", "arguments": {}}', Reply(calls=[NOW])),
    ],
    "pythonic": [
        ("[now()]", Reply(calls=[NOW])),
        (
            "\n[get_weather(city='Kö\\'ln', days = [1, -2.5, 1e3], sure=True,), now( )]\n",
            Reply(
                calls=[
                    ("get_weather", '{"city": "Kö\'ln", "days": [1, -2.5, 1000.0], "sure": true}'),
                    NOW,
                ]
            ),
        ),
        (
            '[get_weather(at={"lat": 1, "x": (None, false)}, s="a" "b)")]',
            Reply(calls=[("get_weather", '{"at": {"lat": 1, "x": [null, false]}, "s": "ab)"}')]),
        ),
        ("Ok. <|tool_call_start|>[now()]<|tool_call_end|>", Reply("Ok.", calls=[NOW])),
    ],
}

# Text that looks like a call and is none: content, unchanged, streamed or not.
NO_CALLS: dict[str, list[str]] = {
    "hermes": [
        "",
        "Hello <tool_cal and < too.\n",
        "<tool_call>",
        "<tool_call>\nnot JSON\n</tool_call>",
        '<tool_call>{"name": "unknown", "arguments": {}}</tool_call> ',
        '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "now", "arguments": 5}</tool_call>',
        '<tool_call>{"name": "now", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "now", "arguments": "x"}</tool_call>',
        '<tool_call>{"arguments": {"a": 1]}, "name": "now"}</tool_call>',
        '<tool_call>{"arguments": {"a": NaN}, "name": "now"}</tool_call>',
        '<tool_call>{"name": "now", "other": 1}</tool_call>',
        '<tool_call>{"name": "now", "name": "now"}</tool_call>',
        '<tool_call>{"arguments": {}, "arguments": {}, "name": "now"}</tool_call>',
        '<tool_call>{"name": "now", "arg',
        '<tool_call>{"name" "now"}</tool_call>',
        "<tool_call>{}</tool_call>",
        "<tool_call>" * 3,
        '<tool_call>{"arguments": ' + "[" * (MAX_DEPTH + 1),
        '[{"name": "now", "arguments": {}}]',
    ],
    "llama3_json": [
        "Hi {}",
        '{"answer": 42}',
        '{"name": "Ann", "parameters": {}}',
        '{"name": "now"',
        "{",
        '<|python_tag|>brave_search.call(query="x")',
        "<|python_tag|>",
        'So: {"name": "now", "parameters": {}}',
        '[{"name": "now", "parameters": {}}]',
    ],
    "mistral": [
        "[TOOL_CALLS]",
        "[TOOL_CALLS] []",
        "[TOOL_CALLS]unknown[ARGS]{}",
        "[TOOL_CALLS]now[ARGS]",
        "[TOOL_CALLS]now",
        '[TOOL_CALLS] [{"name": "unknown", "arguments": {}}]',
        "[TOOL_C] x [ARGS]",
        '[{"name": "now", "arguments": {}}]',
    ],
    "pythonic": [
        "[1, 2]",
        "[Note] now()",
        "[now(",
        "[now(]",
        "[now(5)]",
        "[now(a=b)]",
        "[now(a=1, a=2)]",
        "[now(a=1-1)]",
        "[now(a={1: 2})]",
        "[now(a={'x'})]",
        "[now(a=b'x')]",
        "[now(a=f'x')]",
        "[now(a=1j)]",
        "[now(a=1e999)]",
        "[now(a=__import__('os'))]",
        "[now(a='\n')]",
        "[now(a=1 2)]",
        "[now(a=)]",
        "[now(=1)]",
        "[now(a=1,,b=2)]",
        "[now(a=" + "[" * 5000 + "]" * 5000 + ")]",
        "[now(a=" + "-" * 5000 + "1)]",
        "[now(a=" + "9" * 5000 + ")]",
        "[unknown()]",
        "[]",
        "now()",
        "Hi [now()]",
    ],
}
# A part of these calls is out before they turn out malformed.
BROKEN: dict[str, list[tuple[str, Reply]]] = {
    "hermes": [
        (
            'A <tool_call>{"name": "now", "arguments": {"a": 1]} </tool_call>B',
            Reply("A B", calls=[("now", '{"a": 1]} ')]),
        ),
        ('<tool_call>{"name": "now", "arguments": {"a": tru}}</tool_call>', None),
        ('<tool_call>{"name": "now", "arguments": {"a": "unclosed', None),
    ],
    "llama3_json": [('{"name": "now", "parameters": {"a": 1', None)],
    "mistral": [
        ('[TOOL_CALLS] [{"name": "now", "arguments": {"a": ]}}, x', None),
        ("[TOOL_CALLS]now[ARGS]{'a'}", None),
    ],
}


def table(cases: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(form, *(case if isinstance(case, tuple) else (case,)), id=f"{form}-{index}")
        for form, listed in cases.items()
        for index, case in enumerate(listed)
    ]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("form", "text", "expected"), table(CALLS))
def test_calls_are_read(form: str, text: str, expected: Reply, stream: bool) -> None:
    assert parse(form, text, stream=stream) == expected
    for _, arguments in expected.calls:
        assert isinstance(json.loads(arguments), dict)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("form", "text"), table(NO_CALLS))
def test_what_is_no_call_stays_content(form: str, text: str, stream: bool) -> None:
    assert parse(form, text, stream=stream) == Reply(text)


@pytest.mark.parametrize(("form", "text", "streamed"), table(BROKEN))
def test_call_that_breaks_late_is_content_or_stays_a_call_once_streamed(
    form: str, text: str, streamed: Reply | None
) -> None:
    assert parse(form, text, stream=False) == Reply(text)
    reply = parse(form, text, stream=True)
    if streamed is not None:
        assert reply == streamed
    ((name, arguments),) = reply.calls
    assert name == "now"
    assert arguments.startswith("{")
    with pytest.raises(ValueError):
        json.loads(arguments)


@pytest.mark.parametrize("stream", [True, False])
def test_arguments_are_the_first_where_they_are_written_twice(stream: bool) -> None:
    text = '<tool_call>{"name": "now", "arguments": {"a": 1}, "arguments": {"b": 2}}</tool_call>'
    reply = parse("hermes", text, stream=stream)
    assert reply == Reply('{"b": 2}}</tool_call>', calls=[("now", '{"a": 1}')])


def test_calls_after_a_broken_one_are_read() -> None:
    broken = '<tool_call>{"name": "now", "arguments": {"a": 1]}</tool_call>'
    assert parse("hermes", f"{broken}\n{HERMES_NOW}", stream=False) == Reply(broken, calls=[NOW])
    reply = parse("hermes", f"{broken}\n{HERMES_NOW}", stream=True)
    assert reply == Reply(calls=[("now", '{"a": 1]}'), NOW])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("form", sorted(CALLS))
def test_result_does_not_depend_on_the_cut(form: str, stream: bool) -> None:
    rng = random.Random(11)
    texts = [text for text, _ in CALLS[form]] + NO_CALLS[form]
    texts += [text for text, _ in BROKEN.get(form, ())]
    # Two in one, and texts with a part left out, so that the rules meet what nobody thought of.
    texts += ["".join(rng.sample(texts, 2)) for _ in range(15)]
    for text in (text for text in list(texts) if len(text) < 400):
        start, end = sorted(rng.choices(range(len(text) + 1), k=2))
        texts.append(text[:start] + text[end:])
    for text in (text for text in texts if len(text) < 400):
        expected = parse(form, text, stream=stream, reasoning=True)
        for pieces in cuts(text, rng, 4):
            assert parse(form, pieces, stream=stream, reasoning=True) == expected, pieces


SOUP = (
    *("<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    *('{"name": "now"', '"arguments": ', '"parameters": ', "now", "(", ")", "a=1", "unknown"),
    *(
        "{",
        "}",
        "[",
        "]",
        '"',
        "\\",
        ",",
        ":",
        ";",
        " ",
        "\n",
        "1",
        "'",
        "<think>",
        "</think>",
        "<",
    ),
)


@pytest.mark.parametrize("form", TOOL_CALL_FORMATS)
def test_whatever_the_text_nothing_is_lost_and_nothing_raises(form: str) -> None:
    rng = random.Random(5)
    soup = [*SOUP, *(text for text, _ in CALLS[form.removesuffix("_args")])]
    n_calls = 0
    for _ in range(500):
        text = "".join(rng.choices(soup, k=rng.randrange(1, 25)))
        whole = parse(form, text, stream=False)
        assert whole.calls or whole.content == text
        for stream, expected in ((False, whole), (True, parse(form, text))):
            assert parse(form, list(text), stream=stream) == expected, text
            assert all(name in NAMES for name, _ in expected.calls)
        n_calls += len(whole.calls)
    assert n_calls > 10


def test_call_streams_as_openais() -> None:
    parser = make_parser("hermes")
    assert parser.put('<tool_call>\n{"name": "now"') == []
    none = parser.put(', "arguments": ')
    assert none == []
    first, second = parser.put('{"a": [1')
    call = first["tool_calls"][0]
    assert call.pop("id").startswith("call_")
    assert call == {
        "index": 0,
        "type": "function",
        "function": {"name": "now", "arguments": ""},
    }
    assert second == {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": [1'}}]}
    assert parser.has_tool_calls
    assert parser.put(", 2") == [{"tool_calls": [{"index": 0, "function": {"arguments": ", 2"}}]}]
    assert parser.put("]}}\n</tool") == [
        {"tool_calls": [{"index": 0, "function": {"arguments": "]}"}}]}
    ]
    assert parser.put("_call>") == parser.finish() == []


def test_text_before_a_call_streams_at_once() -> None:
    parser = make_parser("hermes")
    assert parser.put("Let me see. <too") == [{"content": "Let me see."}]
    assert parser.put("ls> are") == [{"content": " <tools> are"}]
    assert not parser.has_tool_calls


def test_held_calls_come_at_their_end() -> None:
    parser = make_parser("hermes", stream=False)
    assert parser.put(HERMES_NOW[:-20]) == []
    assert not parser.has_tool_calls
    assert len(parser.put(HERMES_NOW[-20:])) == 2


@pytest.mark.parametrize("stream", [True, False])
def test_without_parallel_calls_the_reply_ends_with_the_first(stream: bool) -> None:
    parser = make_parser("hermes", parallel_tool_calls=False, stream=stream)
    found = deltas(parser, [f"Ok. {HERMES}", f"\n{HERMES_NOW} more", " text"])
    reply = Reply()
    for delta in found:
        reply.add(delta)
    assert reply == Reply("Ok.", calls=[WEATHER])
    assert parser.is_complete


def test_parallel_calls_do_not_end_the_reply() -> None:
    parser = make_parser("hermes")
    deltas(parser, [HERMES])
    assert not parser.is_complete


def test_call_after_a_thought_and_none_inside_one() -> None:
    text = f"<think>{HERMES_NOW}</think>\n\n{HERMES}"
    assert parse("hermes", text, reasoning=True) == Reply("", HERMES_NOW, [WEATHER])


def test_ids_are_new_each_time_and_mistrals_are_nine_characters() -> None:
    for form in TOOL_CALL_FORMATS.values():
        ids = {form.new_call_id() for _ in range(100)}
        assert len(ids) == 100
        if form.name.startswith("mistral"):
            assert all(len(each) == 9 and each.isalnum() for each in ids)


def test_forced_prefix_begins_a_call() -> None:
    for name, form in TOOL_CALL_FORMATS.items():
        if form.forced_prefix:
            parser = make_parser(name)
            assert parser.put(form.forced_prefix) == []
            parser.put('[{"name": "now", "arguments": {}}]')
            assert parser.has_tool_calls


def test_long_reply_costs_time_in_proportion() -> None:
    text = '<tool_call>{"name": "now", "arguments": {"a": "' + "x" * 300_000 + '"}}</tool_call>'
    pieces = [text[i : i + 4] for i in range(0, len(text), 4)]
    ((_, arguments),) = parse("hermes", pieces).calls
    assert len(arguments) == 300_000 + len('{"a": ""}')


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{{ \'<tool_call>\\n{"name": "\' }}', "hermes"),
        ("<tool_call>\n<function=x>", None),
        ("<tool_call>{{ name }}<arg_key>", None),
        ("{{ '{\"name\": \"' + name + '\", ' }}{{ '\"parameters\": ' }}", None),
        ('Respond in the format {"name": function name, "parameters": dictionary', "llama3_json"),
        ("<|python_tag|>", "llama3_json"),
        ("[TOOL_CALLS] [", "mistral"),
        ("[TOOL_CALLS]{{ name }}[ARGS]", "mistral_args"),
        ("in the format of [func_name1(params_name1=params_value1, ...)]", "pythonic"),
        ("{{ tools | tojson }}", None),
        ("", None),
    ],
)
def test_format_is_detected_by_the_template(template: str, expected: str | None) -> None:
    form = detect_tool_call_format(template, {"<tool_call>": 1}.get)
    assert (None if form is None else form.name) == expected


@pytest.mark.parametrize(
    ("token", "expected"),
    [("<tool_call>", "hermes"), ("[TOOL_CALLS]", "mistral"), ("<|python_tag|>", "llama3_json")],
)
def test_format_is_detected_by_the_vocabulary_without_a_template(token: str, expected: str) -> None:
    form = detect_tool_call_format(None, {token: 1}.get)
    assert form is TOOL_CALL_FORMATS[expected]
    assert detect_tool_call_format(None, {}.get) is None


def test_names_of_the_cases_are_known() -> None:
    assert {name for listed in CALLS.values() for _, r in listed for name, _ in r.calls} <= NAMES
