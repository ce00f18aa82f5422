"""ApiObject: attribute, item and dict views of one JSON object."""

import copy
import json

import pytest

from py_engine.api.objects import ApiObject, plain

CHUNK = {
    "id": "1",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}}],
    "usage": None,
}


def test_attributes_and_items_reach_nested_fields() -> None:
    chunk = ApiObject(CHUNK)
    assert chunk.choices[0].delta.content == "hi"
    assert chunk["choices"][0]["delta"]["content"] == "hi"


def test_absent_openai_fields_are_none_as_attributes_only() -> None:
    chunk = ApiObject(CHUNK)
    assert chunk.choices[0].finish_reason is None
    assert chunk.get("model") is None
    with pytest.raises(KeyError):
        chunk["model"]


def test_unknown_attribute_names_the_fields_that_exist() -> None:
    with pytest.raises(AttributeError, match=r"no field 'contents'.*choices"):
        _ = ApiObject(CHUNK).contents


def test_to_dict_is_plain_and_independent() -> None:
    chunk = ApiObject(CHUNK)
    dumped = chunk.model_dump()
    dumped["choices"][0]["delta"]["content"] = "changed"
    assert chunk.to_dict() == CHUNK
    assert type(chunk.to_dict()["choices"][0]) is dict


def test_fields_can_be_set_both_ways() -> None:
    message = ApiObject({"role": "user"})
    message.content = {"a": [1]}
    message["name"] = "x"
    assert message.content.a == [1]
    assert message.to_dict() == {"role": "user", "content": {"a": [1]}, "name": "x"}


def test_behaves_as_a_mapping() -> None:
    chunk = ApiObject(CHUNK)
    assert sorted(chunk) == sorted(chunk.keys()) == ["choices", "id", "usage"]
    assert len(chunk) == 3
    assert "id" in chunk
    assert dict(chunk)["id"] == "1"


def test_equality_with_dicts_copies_and_text() -> None:
    chunk = ApiObject(CHUNK)
    assert chunk == CHUNK
    assert copy.deepcopy(chunk) == chunk
    assert chunk != ApiObject({"id": "2"})
    assert eval(repr(chunk)) == chunk


def test_plain_reaches_objects_inside_lists_and_dicts() -> None:
    mixed = [ApiObject({"a": 1}), {"b": (ApiObject({"c": 2}),)}]
    assert json.dumps(plain(mixed)) == '[{"a": 1}, {"b": [{"c": 2}]}]'
