"""What transformers computes for a case; needs torch and transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from py_engine.weights.quantization import F32, stored_value
from tests.conformance.recipe import (
    N_PROMPT,
    PREFILL_CHUNK_SIZE,
    Case,
    make_prompt,
    make_weights,
)

EARLY_POSITIONS = (0, 1, PREFILL_CHUNK_SIZE - 1, PREFILL_CHUNK_SIZE, 2 * PREFILL_CHUNK_SIZE - 1)


@dataclass(frozen=True)
class Reference:
    """Prompt and greedy continuation, and logits after the tokens at `positions`, (n, vocab)."""

    token_ids: list[int]
    positions: list[int]
    logits: F32

    @property
    def margin(self) -> float:
        """The smallest gap between the two best logits at the greedy steps."""
        best = np.sort(self.logits[len(EARLY_POSITIONS) :], axis=-1)
        return float((best[:, -1] - best[:, -2]).min())


@torch.no_grad()
def run_reference(case: Case, seed: int) -> Reference:
    """Run a case in f32 on the weights as its format stores them."""
    config = transformers.AutoConfig.for_model(**case.config)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    state = {
        name: torch.from_numpy(stored_value(weight, case.quantization))
        for name, weight in make_weights(case, seed).items()
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    model.float().eval()
    token_ids = make_prompt(case, seed)
    for _ in range(case.n_greedy):
        token_ids.append(int(_logits(model, token_ids)[-1].argmax()))
    positions = [*EARLY_POSITIONS, *range(N_PROMPT - 1, len(token_ids))]
    logits: F32 = _logits(model, token_ids)[positions].numpy()
    return Reference(token_ids, positions, logits)


def run_rope(head_dim: int, rope: dict[str, Any]) -> list[float]:
    """Return transformers' rotation frequencies, (head_dim / 2,)."""
    config = transformers.LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=16384,
        rope_parameters=rope,
    )
    inv_freq: torch.Tensor = LlamaRotaryEmbedding(config).inv_freq
    return inv_freq.tolist()


def _logits(model: transformers.PreTrainedModel, token_ids: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model(torch.tensor([token_ids]), use_cache=False).logits[0]
    return logits
