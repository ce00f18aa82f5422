"""Which tensors a decoder needs, in each weight format, and how they are split and placed."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import LimitSupportError, UnknownQuantizationError
from py_engine.gpu.types import Limits
from py_engine.json_fields import JsonFields
from py_engine.kernels.relay import units
from py_engine.weights.group_packing import group_packing
from py_engine.weights.layouts import MatrixPart, matrix_parts, part_buffers, placed
from py_engine.weights.matrix_plan import plan_matrix
from py_engine.weights.parameters import MatrixParameter, named
from py_engine.weights.records import TensorRecord
from py_engine.weights.tensor_index import TensorIndex
from py_engine.weights.transfers import Run, joined, source_runs, transfers
from tests.support.mlc_files import mlc_shapes


def make_config(
    weight_format: str, tied: bool = True, family: str = "llama", **model: Any
) -> ChatConfig:
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_hidden_layers": 2,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
    }
    return ChatConfig.from_json(
        {
            "model_type": family,
            "quantization": weight_format,
            "vocab_size": 103,
            "context_window_size": 128,
            "model_config": {**sizes, **model},
        }
    )


def shapes(weight_format: str, **options: Any) -> dict[str, tuple[int, ...]]:
    return mlc_shapes(make_config(weight_format, **options))


@pytest.mark.parametrize("weight_format", ["q4f16_1", "q4f32_1"])
def test_quantised_matrices_are_codes_and_scales(weight_format: str) -> None:
    made = shapes(weight_format)
    qkv = "model.layers.1.self_attn.qkv_proj"
    assert (made[f"{qkv}.q_weight"], made[f"{qkv}.q_scale"]) == ((256, 8), (256, 2))
    assert made["model.layers.0.self_attn.o_proj.q_weight"] == (64, 16)
    assert made["model.layers.0.mlp.down_proj.q_scale"] == (64, 3)
    assert made["model.embed_tokens.q_weight"] == (103, 8)


def test_transposed_formats_keep_their_tables() -> None:
    made = shapes("q4f16_0", tied=False)
    assert made["model.layers.0.mlp.down_proj.q_weight"] == (12, 64)
    assert made["lm_head.q_scale"] == (2, 103)
    assert made["model.embed_tokens.q_weight"] == (103, 8)


def test_plain_ends_and_groups_of_forty() -> None:
    made = shapes("q4f16_2", tied=False)
    assert made["lm_head.weight"] == made["model.embed_tokens.weight"] == (103, 64)
    assert made["model.layers.0.mlp.down_proj.q_weight"] == (64, 12)
    assert shapes("q3f16_1")["model.layers.0.mlp.down_proj.q_weight"] == (64, 12)
    assert shapes("q3f16_1")["model.layers.0.mlp.down_proj.q_scale"] == (64, 3)


def test_the_head_is_optional() -> None:
    tied, untied = shapes("q4f16_1"), shapes("q4f16_1", tied=False)
    assert len(tied) == 5 + 2 * 9
    assert set(untied) - set(tied) == {"lm_head.q_weight", "lm_head.q_scale"}


def test_biases_and_norms_of_heads() -> None:
    plain, made = shapes("q4f16_1"), shapes("q4f16_1", family="qwen3", attention_bias=True)
    norms = {shape for name, shape in made.items() if "self_attn" in name and "norm" in name}
    assert norms == {(32,)}
    assert len(made) == len(plain) + 2 * 4
    assert made["model.layers.1.self_attn.c_attn.bias"] == (256,)


def limits(nbytes: int) -> Limits:
    return Limits(max_storage_buffer_binding_size=nbytes)


QKV = MatrixParameter("qkv", (96, 32, 32), 64, head_dim=32)


def test_neighbours_of_one_format_are_one_part() -> None:
    stretches = [("q4_k", 96), ("q4_k", 32), ("q6_k", 32)]
    wide = MatrixParameter("qkv", (96, 32, 32), 256)
    assert matrix_parts(wide, stretches, Limits()) == (
        MatrixPart("q4_k", 128, 0),
        MatrixPart("q6_k", 32, 128),
    )
    assert list(part_buffers("qkv", 1, MatrixPart("q6_k", 32, 128)).values()) == ["qkv.1.weights"]


def test_large_matrices_are_split_by_rows_at_heads() -> None:
    parts = matrix_parts(QKV, [("q0f16", 160)], limits(128 * 70))
    assert [(part.first_output, part.rows) for part in parts] == [(0, 64), (64, 64), (128, 32)]
    runs = joined(placed(parts, False, [Run(0, 96, 0, 0)]))
    assert runs == (Run(0, 64, 0, 0), Run(64, 32, 1, 0))
    assert joined(placed(parts, False, [Run(0, 32, 0, 96)])) == (Run(0, 32, 1, 32),)


def test_gated_matrices_are_split_by_outputs() -> None:
    gate_up = MatrixParameter("gate_up", (80, 80), 64, gated=True)
    parts = matrix_parts(gate_up, [("q0f16", 80), ("q0f16", 80)], limits(128 * 70))
    assert parts == (
        MatrixPart("q0f16", 64, 0),
        MatrixPart("q0f16", 64, 32),
        MatrixPart("q0f16", 32, 64),
    )
    up = joined(placed(parts, True, [Run(0, 80, 0, 80)]))
    assert up == (Run(0, 32, 0, 32), Run(32, 32, 1, 32), Run(64, 16, 2, 16))


def test_gates_and_factors_in_two_formats_are_refused() -> None:
    gate_up = MatrixParameter("gate_up", (80, 80), 256, gated=True)
    with pytest.raises(UnknownQuantizationError, match=r"gate_up is stored as Q4_K and Q6_K, but"):
        matrix_parts(gate_up, [("q4_k", 80), ("q6_k", 80)], Limits())


def test_rows_too_large_to_bind_are_refused() -> None:
    with pytest.raises(LimitSupportError, match=r"32 rows of qkv take 4,096 bytes.*at most 4,000"):
        matrix_parts(QKV, [("q0f16", 160)], limits(4000))


def test_heads_in_turn_become_blocks() -> None:
    runs = joined(source_runs(24, 0, "interleaved_heads", 4, 3))
    rows = [run.to_row + i for run in runs for i in range(run.rows)]
    heads = [[0, 1, 2, 3], [8, 9, 10, 11], [16, 17, 18, 19]]
    expected = [row + 4 * head for head in range(2) for block in heads for row in block]
    assert rows == expected


def test_whole_layers_of_large_models_fit_into_a_grid() -> None:
    rows, columns, size = 18944, 3584, 128  # Qwen 2.5 7B's gate, in AWQ
    shapes = {
        "gate.qweight": ((columns, rows // 8), "I32"),
        "gate.qzeros": ((columns // size, rows // 8), "I32"),
        "gate.scales": ((columns // size, rows), "F16"),
    }
    tensors = {
        name: TensorRecord(name, shape, dtype, "model.safetensors", 0, 4 * shape[0] * shape[1])
        for name, (shape, dtype) in shapes.items()
    }
    method = {"quant_method": "awq", "bits": 4, "group_size": size}
    packing = group_packing(JsonFields({"quantization_config": method}, "config.json"))
    index = TensorIndex("model.safetensors", tensors, "q0f16", packing)
    gate = MatrixParameter("up", (rows,), columns)
    plan = plan_matrix(gate, named("gate"), index, "q0f16", Limits())
    relays = [r for load in plan.loads for each in transfers(load) for r in each.relays]
    assert len(relays) == 3
    for relay in relays:
        grid = relay.kernel.workgroups(units(relay.kernel, relay.rows, relay.columns))
        assert max(grid) <= Limits().max_compute_workgroups_per_dimension
