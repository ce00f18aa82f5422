"""Roles to names of GGUF's tensors."""

from __future__ import annotations

from py_engine.weights.gguf_names import gguf_names
from py_engine.weights.parameters import layer_names, named

LLAMA = {f"blk.0.{name}.weight" for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")}


def test_separate_tensors_are_stacked_and_llamas_q_and_k_are_in_pairs() -> None:
    names = layer_names(gguf_names("llama", LLAMA), 2)
    qkv = names["layers.1.qkv"]
    assert qkv.names == ("blk.1.attn_q", "blk.1.attn_k", "blk.1.attn_v")
    assert [qkv.transform_of(i) for i in range(3)] == ["rope_pairs", "rope_pairs", "none"]
    bias = names["layers.1.qkv.bias"]
    assert bias.names == ("blk.1.attn_q.bias", "blk.1.attn_k.bias", "blk.1.attn_v.bias")
    assert [bias.transform_of(i) for i in range(3)] == ["rope_pairs", "rope_pairs", "none"]
    assert names["layers.0.gate_up"] == named("blk.0.ffn_gate", "blk.0.ffn_up")
    assert names["layers.0.mlp_norm"] == named("blk.0.ffn_norm.weight")
    assert names["final_norm.bias"] == named("output_norm.bias")


def test_other_architectures_have_halves_already() -> None:
    for family in ("qwen2", "qwen3", "gemma3_text", "phi3", "stablelm", "olmo2", "gpt_neox"):
        qkv = gguf_names(family, LLAMA)["layers.{i}.qkv"]
        assert qkv.transform == "none"


def test_fused_tensors_are_taken_where_a_file_has_them() -> None:
    fused = {"blk.0.attn_qkv.weight", "blk.0.attn_qkv.bias", "blk.0.ffn_up.weight"}
    names = gguf_names("phi3", fused)
    assert names["layers.{i}.qkv"] == named("blk.{i}.attn_qkv")
    assert names["layers.{i}.qkv.bias"] == named("blk.{i}.attn_qkv.bias")
    assert names["layers.{i}.gate_up"] == named("blk.{i}.ffn_up")
    assert names["layers.{i}.up"] == named("blk.{i}.ffn_up")


def test_what_a_file_lacks_has_its_usual_name() -> None:
    names = gguf_names("llama", set())
    assert names["lm_head"] == named("output")
    assert names["layers.{i}.gate_up"] == named("blk.{i}.ffn_gate", "blk.{i}.ffn_up")
