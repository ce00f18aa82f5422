"""Special tokens around a text: the same ids as the tokenizers library adds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import tokenizers

from py_engine.errors import ModelFileFormatError
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from py_engine.tokenizer.special_tokens import SequenceTemplate
from tests.conformance.encoder_fixtures import TOKENIZER

TEXTS = ("", "a dog", "The green hill, naïve café.", "x" * 300, "[MASK] dog [SEP] hill")

CLS = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
SEP = {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
SPECIAL_TOKENS = {
    "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
    "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
}


def template(*single: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "TemplateProcessing",
        "single": list(single),
        "pair": [TEXT, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": SPECIAL_TOKENS,
    }


BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": True,
}
BERT = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
POST_PROCESSORS = {
    "none": None,
    "template": template(CLS, TEXT, SEP),
    "prefix only": template(CLS, TEXT),
    "suffix only": template(TEXT, SEP, SEP),
    "two before": template(CLS, SEP, TEXT, CLS),
    "bert": BERT,
    "roberta": {
        "type": "RobertaProcessing",
        "sep": ["[SEP]", 3],
        "cls": ["[CLS]", 2],
        "trim_offsets": True,
        "add_prefix_space": False,
    },
    "byte level": BYTE_LEVEL,
    "sequence": {"type": "Sequence", "processors": [BYTE_LEVEL, template(CLS, TEXT, SEP)]},
}


def tokenizer_json(post_processor: Any) -> str:
    data = json.loads(TOKENIZER.read_text(encoding="utf-8"))
    return json.dumps(data | {"post_processor": post_processor})


def opened(post_processor: Any) -> Tokenizer:
    return asyncio.run(tokenizer_from_json(tokenizer_json(post_processor)))


@pytest.mark.parametrize("name", POST_PROCESSORS)
def test_ids_equal_those_of_the_library(name: str) -> None:
    ours = opened(POST_PROCESSORS[name])
    theirs = tokenizers.Tokenizer.from_str(tokenizer_json(POST_PROCESSORS[name]))
    for text in TEXTS:
        wanted = theirs.encode(text, add_special_tokens=True).ids
        assert ours.template.around(ours.encode(text)) == wanted, text


def test_written_special_tokens_are_not_added_again() -> None:
    ours = opened(POST_PROCESSORS["template"])
    written = ours.encode("[CLS] a dog [SEP]")
    assert ours.template.around(written) == written
    assert ours.template.around(ours.encode("a dog")) == written


def test_a_template_without_prefix_adds_its_suffix() -> None:
    assert SequenceTemplate(suffix=(3,)).around([7]) == [7, 3]
    assert SequenceTemplate((2,), (3,)).around([]) == [2, 3]


@pytest.mark.parametrize(
    "post_processor",
    [
        [],
        "bert",
        {"name": "without a type"},
        {"type": "BertProcessing"},
        {"type": "BertProcessing", "sep": ["[SEP]"], "cls": ["[CLS]", 2]},
        {"type": "TemplateProcessing", "single": [CLS, TEXT], "special_tokens": {}},
        template(CLS, TEXT, TEXT),
        {"type": "Sequence", "processors": [{"type": "Sequence"}]},
    ],
    ids=str,
)
def test_a_wrong_post_processor_is_named(post_processor: Any) -> None:
    with pytest.raises(ModelFileFormatError, match=r"tokenizer\.json: post_processor is "):
        opened(post_processor)
