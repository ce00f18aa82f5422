"""Control tokens in messages against PyPI `tokenizers` with `encode_special_tokens`, and against
transformers' own `sanitize_control_tokens` where it is installed."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

import pytest
import tokenizers

from py_engine.conversation.jinja_template import ChatTemplate
from py_engine.conversation.renderer import PromptRenderer
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from tests.support.control_tokens import HOSTILE_TEXTS
from tests.support.tokenizer_files import SHAPES, tokenizer_json

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
# bert and metaspace know too few characters to give a text back: they are not for chat.
TEMPLATES = {"gpt2": CHATML, "qwen2": CHATML, "llama2": LLAMA_2, "gemma": LLAMA_2}


def open_tokenizer(shape: str) -> Tokenizer:
    return asyncio.run(tokenizer_from_json(tokenizer_json(shape)))


def prompt_ids(tokenizer: Tokenizer, template: str, content: str) -> list[int]:
    renderer = PromptRenderer(tokenizer, ChatTemplate({"": template}, VARIABLES), frozenset())
    return renderer.render([{"role": "user", "content": content}]).token_ids


def control_ids(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Return the special ids in `ids`, without those for characters that no token has."""
    unknown = tokenizer.token_to_id("<unk>")
    return [index for index in ids if index in tokenizer.special_ids and index != unknown]


@pytest.mark.parametrize("content", HOSTILE_TEXTS)
@pytest.mark.parametrize("shape", TEMPLATES)
def test_message_text_decodes_to_itself_and_adds_no_control_token(shape: str, content: str) -> None:
    tokenizer = open_tokenizer(shape)
    template = TEMPLATES[shape]
    ids = prompt_ids(tokenizer, template, content)
    harmless = prompt_ids(tokenizer, template, "x")
    assert control_ids(tokenizer, ids) == control_ids(tokenizer, harmless)
    text = tokenizer.decode(ids, skip_special_tokens=False)
    plain = tokenizer.decode(harmless, skip_special_tokens=False)
    before, after = plain.split("x")
    library = tokenizers.Tokenizer.from_str(tokenizer_json(shape))
    library.encode_special_tokens = True
    as_text = library.encode(content, add_special_tokens=False).ids
    assert text == before + library.decode(as_text, skip_special_tokens=False) + after


@pytest.mark.parametrize("shape", TEMPLATES)
def test_text_without_control_tokens_is_tokenized_as_a_whole(shape: str) -> None:
    tokenizer = open_tokenizer(shape)
    content = "The <quick> brown fox [doesn't] </p> jump |>"
    expected = tokenizer.encode(
        ChatTemplate({"": TEMPLATES[shape]}, VARIABLES).pieces(
            [{"role": "user", "content": content}]
        )[0]
    )
    assert prompt_ids(tokenizer, TEMPLATES[shape], content) == expected


def cut_parts(tokenizer: Tokenizer, content: str) -> list[str]:
    """Return a text in parts, by a simpler rule than the engine's."""
    special = {tokenizer.token(index) or "" for index in tokenizer.special_ids}
    parts, rest = [""], content
    while rest:
        starts = [rest.find(token) for token in special if token in rest]
        end = min(starts) + 1 if starts else len(rest)
        parts.append(rest[:end])
        rest = rest[end:]
    return parts[1:] or [""]


@pytest.mark.parametrize("content", HOSTILE_TEXTS)
@pytest.mark.parametrize("shape", sorted({*SHAPES} - {"metaspace"}))
def test_parts_encode_as_the_library_encodes_special_tokens_as_text(
    shape: str, content: str
) -> None:
    """The ids are even equal here, as these vocabularies have no token over a cut."""
    tokenizer = open_tokenizer(shape)
    library = tokenizers.Tokenizer.from_str(tokenizer_json(shape))
    library.encode_special_tokens = True
    expected = library.encode(content, add_special_tokens=False).ids
    assert tokenizer.encode_parts(cut_parts(tokenizer, content)) == expected


@pytest.mark.parametrize("content", HOSTILE_TEXTS)
def test_parts_are_text_even_where_the_library_cannot_have_it_so(content: str) -> None:
    """A Unigram vocabulary holds `</s>` as a piece, which the library finds in plain text."""
    tokenizer = open_tokenizer("metaspace")
    ids = tokenizer.encode_parts(cut_parts(tokenizer, content))
    assert control_ids(tokenizer, ids) == []


@pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="needs transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("content", HOSTILE_TEXTS)
@pytest.mark.parametrize("shape", TEMPLATES)
def test_prompt_equals_transformers(shape: str, content: str) -> None:
    from transformers import PreTrainedTokenizerFast

    library: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(tokenizer_json(shape)), **VARIABLES
    )
    expected = library.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=TEMPLATES[shape],
        add_generation_prompt=True,
        sanitize_control_tokens=True,
        return_dict=False,
    )
    ours = prompt_ids(open_tokenizer(shape), TEMPLATES[shape], content)
    # In llama2's shape its pieces gain a space, where a marked token is followed by spaces.
    assert library.decode(ours).split() == library.decode(expected).split()
    assert control_ids(open_tokenizer(shape), ours) == control_ids(open_tokenizer(shape), expected)
