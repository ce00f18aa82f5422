"""Name tables: patterns of layers, spellings of files, and where transforms apply."""

from __future__ import annotations

from py_engine.weights.parameters import (
    MatrixParameter,
    Spelling,
    Stored,
    VectorParameter,
    fitting_names,
    layer_names,
    named,
)

TABLE = {
    "embedding": named("model.embed"),
    "layers.{i}.qkv": named("model.{i}.q", "model.{i}.k", transform="transpose"),
    "final_norm": named("model.norm.weight"),
    "lm_head": named("lm_head"),
}


def test_patterns_become_names_of_every_layer() -> None:
    names = layer_names(TABLE, 12)
    assert len(names) == 12 + 3
    assert names["layers.11.qkv"] == Stored(("model.11.q", "model.11.k"), "transpose")
    assert names["final_norm"].names == ("model.norm.weight",)


def test_a_spelling_is_found_by_the_first_norm() -> None:
    part = Spelling(prefixes=(("model.", "text.model."), ("", "text.")))
    bare = Spelling(prefixes=(("model.", ""),), suffixes=(("norm.weight", "norm.gamma"),))
    found = fitting_names(TABLE, (bare, part), {"text.model.norm.weight"})
    assert found["embedding"].names == ("text.model.embed",)
    assert found["lm_head"].names == ("text.lm_head",)
    assert found["layers.{i}.qkv"].transform == "transpose"
    found = fitting_names(TABLE, (bare, part), {"norm.gamma"})
    assert found["final_norm"].names == ("norm.gamma",)
    assert found["layers.{i}.qkv"].names == ("{i}.q", "{i}.k")


def test_the_tables_own_spelling_goes_first_and_stays_where_none_fits() -> None:
    other = Spelling(prefixes=(("model.", ""),))
    tensors = {"model.norm.weight", "norm.weight"}
    assert fitting_names(TABLE, (other,), tensors) == TABLE
    assert fitting_names(TABLE, (other,), set()) == TABLE


def test_some_tensors_of_a_parameter_are_transformed() -> None:
    some = Stored(("q", "k", "v"), "rope_pairs", (True, True, False))
    assert [some.transform_of(i) for i in range(3)] == ["rope_pairs", "rope_pairs", "none"]
    assert named("w", transform="add_one").transform_of(0) == "add_one"


def test_sizes_are_of_all_blocks() -> None:
    assert MatrixParameter("layers.0.qkv", (64, 32, 32), 64).rows == 128
    assert VectorParameter("layers.0.qkv.bias", (64, 32, 32)).size == 128
