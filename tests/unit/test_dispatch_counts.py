"""How many dispatches a decoded token takes on GPUs, beside WebLLM's.

WebLLM's forward passes are counted in the bytecode of its models' `decode` (Qwen2 0.5B, StableLM 2
1.6B, Gemma 2 2B; each call is a dispatch but attention's, of three): 10 a layer, or 12, and 3 or 4
around them. Llama, Mistral, Phi 3 and the first Gemma have the layers of Qwen2 there. Its draws are
two of softmax, a sort of the vocabulary (TVM's topi/gpu/sort.py: a copy, blocks of 128, a merge for
each doubling) and the choice. Other families were not counted.
"""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.gpu.types import AdapterInfo
from py_engine.kernels.batch import Batch
from py_engine.kernels.forms import GemvForm
from py_engine.kernels.tuning import Tuning, tuning_for
from py_engine.models.batch import batched, is_exact
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.decoder_steps import DecoderSteps, decoder_steps
from py_engine.models.drafts import longest_draft
from py_engine.models.kernel_costs import step_of_token
from py_engine.models.sampler import draw_roles
from py_engine.models.spec import DecoderSpec
from tests.support.layouts import uniform_layouts
from tests.support.specs import spec_of
from tests.unit.test_gemma_specs import GEMMA2_2B, GEMMA3_1B_TEXT, GEMMA_2B
from tests.unit.test_layer_norm_specs import (
    GPT2_MEDIUM,
    PHI_1_5,
    PYTHIA_410M,
    REDPAJAMA_3B,
    STABLELM_2_1_6B,
)
from tests.unit.test_llama_spec import MODEL as LLAMA
from tests.unit.test_long_context_specs import MINISTRAL_3_3B, OLMO_2_1B, PHI_3_5_MINI
from tests.unit.test_qwen3_5_spec import TEXT_OF_4B
from tests.unit.test_qwen_specs import QWEN2_5_0_5B, QWEN3_0_6B
from tests.unit.test_tuning import H200

UNKNOWN = AdapterInfo("apple", subgroup_size_max=32)
GPUS = {
    "nvidia": tuning_for(AdapterInfo("nvidia", subgroup_size_max=32), H200),
    "unknown": tuning_for(UNKNOWN, H200),
}
CPU = tuning_for(AdapterInfo("google", subgroup_size_max=4), H200)

COUNTED: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "Llama": ("llama", LLAMA, 10, 3),
    "Mistral": ("mistral", LLAMA, 10, 3),
    "Phi 3.5": ("phi3", PHI_3_5_MINI, 10, 3),
    "Gemma": ("gemma", GEMMA_2B, 10, 3),
    "Qwen2.5": ("qwen2", QWEN2_5_0_5B, 10, 3),
    "StableLM 2": ("stablelm", STABLELM_2_1_6B, 10, 3),
    "Gemma 2": ("gemma2", GEMMA2_2B, 12, 4),
}
"""Family, model, WebLLM's dispatches of a layer and around the layers."""

PER_LAYER = {
    "Gemma 3": ("gemma3_text", GEMMA3_1B_TEXT, 6),
    "GPT-2": ("gpt2", GPT2_MEDIUM, 5),
    "Ministral 3": ("ministral3", MINISTRAL_3_3B, 5),
    "OLMo 2": ("olmo2", OLMO_2_1B, 6),
    "Phi 1.5": ("phi", PHI_1_5, 5),
    "Pythia": ("gpt_neox", PYTHIA_410M, 5),
    "Qwen 3": ("qwen3", QWEN3_0_6B, 5),
    "Qwen 3.5": ("qwen3_5_text", TEXT_OF_4B, 5),
    "RedPajama": ("gpt_neox", REDPAJAMA_3B, 5),
    **{
        name: (family, model, 6 if name == "Gemma 2" else 5)
        for name, (family, model, *_) in COUNTED.items()
    },
}
"""Our dispatches of a layer in short sequences, where products share x among many rows."""


def n_separate_norms(spec: DecoderSpec, shares_x: bool) -> int:
    """Return how many norms behind attention are dispatches of their own."""
    return 0 if shares_x else spec.n_layers * spec.block.post_attention_norm


def steps_of(spec: DecoderSpec, tuning: Tuning) -> DecoderSteps:
    layouts = uniform_layouts(decoder_parameters(spec), "q4f16_1")
    return decoder_steps(spec, layouts, H200.max_buffer_size, tuning)


@pytest.mark.parametrize("role", ["greedy", "sample"])
@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("name", COUNTED)
def test_a_sequence_of_few_tokens_takes_half_of_what_webllms_takes(
    name: str, gpu: str, role: str
) -> None:
    family, model, per_layer, around = COUNTED[name]
    spec = spec_of(family, model, context=4096)
    steps = steps_of(spec, GPUS[gpu])
    # On a GPU whose products were not measured yet the plain form reads x for every few rows.
    separate = n_separate_norms(spec, shares_x=gpu == "nvidia")
    sort = 2 + (spec.active_vocab_size - 1).bit_length() - 7
    theirs = per_layer * spec.n_layers + around + 2 + sort + 1
    for position in (0, 127) if gpu == "unknown" else (0, 127, 256, 1023):
        assert len(step_of_token(spec, steps, position, role)) <= 0.5 * theirs + separate


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("name", PER_LAYER)
def test_a_token_takes_as_many_as_the_documentation_says(name: str, gpu: str) -> None:
    family, model, per_layer = PER_LAYER[name]
    context = 1024 if family == "gpt2" else 4096  # it has no more positions
    spec, tuning = spec_of(family, model, context=context), GPUS[gpu]
    keys = tuning.split_keys
    assert keys is not None
    steps = steps_of(spec, tuning)
    around = 4 + bool(spec.n_positions) + bool(spec.long_rope)
    short = per_layer * spec.n_layers + around + n_separate_norms(spec, gpu == "nvidia")

    def n_steps(n_tokens: int, role: str = "greedy") -> int:
        return len(step_of_token(spec, steps, n_tokens - 1, role))

    assert n_steps(keys.alone_keys) == short
    assert n_steps(keys.alone_keys, "sample") == short + 1
    # Products that have x in workgroup memory join few parts where they read them, 32 elements of a
    # head at once, without gates.
    shapes = [spec.attention(layer) for layer in spec.attention_layers.values()]
    logits, n_layers = steps.next_logits, len(shapes)
    n_combined = sum(step.kernel.label == "combine" for step in logits.of_any)
    few = logits.of_few[-1][0] if n_combined else context
    if gpu == "nvidia" and not any(shape.gated or shape.head_dim % 32 for shape in shapes):
        assert few >= 1024 and n_combined in (0, n_layers, sum(not s.window for s in shapes))
    else:
        assert few == keys.alone_keys and n_combined == n_layers
    assert n_steps(few) == short
    assert n_steps(few + 1) == short + n_combined


def test_a_measured_form_that_shares_x_folds_the_norm_behind_attention() -> None:
    spec = spec_of("gemma2", GEMMA2_2B, context=1024)
    product = ("gemv", 2 * spec.mlp.intermediate_size, spec.hidden_size)

    def n_steps(form: GemvForm) -> int:
        steps = steps_of(spec, tuning_for(UNKNOWN, H200, {product: form}))
        return len(step_of_token(spec, steps, 0, "greedy"))

    assert n_steps(GemvForm(2, 256, unroll=2, staged=True)) == 6 * spec.n_layers + 4
    assert n_steps(GemvForm(4, 64)) == 7 * spec.n_layers + 4


def test_on_the_cpu_a_batch_folds_it_as_one_token_does() -> None:
    """Their logits have the same bits."""
    spec = spec_of("gemma2", GEMMA2_2B, context=1024)
    steps = steps_of(spec, CPU)
    assert is_exact(steps.next_logits.of_any)
    for logits in (steps.next_logits, steps.batch_logits(Batch(4))):
        assert len(logits.of_any) == 6 * spec.n_layers + 2


@pytest.mark.parametrize("name", ["Llama", "Qwen2.5"])
def test_on_the_cpu_products_join_parts_but_not_those_of_a_batch(name: str) -> None:
    family, model, *_ = COUNTED[name]
    spec = spec_of(family, model, context=16384)
    steps = steps_of(spec, CPU)
    n_layers = spec.n_layers
    for n_tokens, per_layer in ((1, 5), (1024, 5), (1025, 5), (8192, 5), (8193, 6)):
        n_steps = len(step_of_token(spec, steps, n_tokens - 1, "greedy"))
        assert n_steps == per_layer * n_layers + 3, n_tokens
    batch = steps.batch_logits(Batch(4))
    [(most, few)] = batch.of_few
    assert most == 1024 and len(few) == 5 * n_layers + 2
    assert len(batch.of_any) == 6 * n_layers + 2


def test_other_adapters_have_one_kind_of_step() -> None:
    spec = spec_of("llama", LLAMA)
    logits = steps_of(spec, Tuning(4)).next_logits
    assert not logits.of_few
    assert len(logits.of_any) == 5 * spec.n_layers + 2
    # Nor where no sequence can be longer than a short one.
    short = steps_of(spec_of("llama", LLAMA, context=256), GPUS["nvidia"])
    assert not short.next_logits.of_few
    assert "split_parts" not in short.buffers


@pytest.mark.parametrize("n_rows", [2, 3, 4, 8])
@pytest.mark.parametrize("is_draft", [False, True])
@pytest.mark.parametrize("name", PER_LAYER)
def test_several_tokens_take_a_layer_together(name: str, is_draft: bool, n_rows: int) -> None:
    """Only LongRoPE's history and linear attention are there for each; draws are not."""
    family, model, per_layer = PER_LAYER[name]
    spec, tuning = spec_of(family, model, context=1024), GPUS["nvidia"]
    if is_draft and not longest_draft(spec):
        pytest.skip("it verifies no drafts")
    size = 1 << (n_rows - 1).bit_length()
    logits = steps_of(spec, tuning).batch_logits(Batch(size, is_draft))
    n_linear, n_attention = len(spec.delta_layers), len(spec.attention_layers)
    layers = per_layer * spec.n_layers + (n_rows - 1) * n_linear + is_draft * n_attention
    layers += n_separate_norms(spec, shares_x=False)  # teams are for one token
    around = 2 + bool(spec.n_positions) + n_rows * bool(spec.long_rope)
    of_short = logits.of(1)
    assert len(batched(of_short, n_rows)) == layers + around
    # Windows may be too short for keys to be shared out.
    n_combined = len(logits.of_any) - len(of_short)
    assert len(batched(logits.of_any, n_rows)) == layers + around + n_combined
    assert 0 < n_combined <= n_attention
    draws = draw_roles(spec.active_vocab_size, tuning, size)
    assert [len(batched(draws[role], n_rows)) for role in ("greedy", "sample")] == [2, 3]


@pytest.mark.parametrize(("gpu", "exact"), [("nvidia", False), ("unknown", True)])
def test_attention_does_not_keep_exact_products_from_batches(gpu: str, exact: bool) -> None:
    steps = steps_of(spec_of("llama", LLAMA, context=1024), GPUS[gpu])
    assert is_exact(steps.next_logits.of_any) is exact
