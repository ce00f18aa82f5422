"""What transformers computes for a case; needs torch and transformers."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.pytorch_utils import Conv1D

from py_engine.weights.quantization import F32
from tests.conformance.cases import N_PROMPT, Case
from tests.conformance.recipe import TensorInfo, Tensors, make_prompt, stored_weights

N_PADDED, N_BESIDE = 33, 41
"""Tokens of the prompt's beginning that are run in a batch, and of what is beside them in it."""

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@dataclass(frozen=True)
class Reference:
    """Prompt and greedy continuation, and what transformers computes for them in f32.

    `logits` and `logits_of_f16_cache`, (n, vocab), are those after the tokens at `positions`, each
    as the last of the sequence so far: the first and the one of `N_PADDED` tokens end within the
    prompt, the others are of greedy steps. The second come from keys and values that were rounded
    to f16, as our KV cache holds them. `margins` are the gaps between the two best logits at every
    greedy step.
    """

    tensors: Tensors
    token_ids: list[int]
    positions: list[int]
    logits: F32
    logits_of_f16_cache: F32
    margins: F32


class _F16Cache(transformers.DynamicCache):
    """A cache that rounds keys and values to f16."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return super().update(
            key_states.half().float(), value_states.half().float(), *args, **kwargs
        )


def checkpoint_tensors(case: Case) -> dict[str, TensorInfo]:
    """Return the tensors of a case's checkpoint as transformers saves it."""
    model = _new_model(case)
    convolutions = {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)
    }
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved = load_file(Path(folder) / "model.safetensors")
    return {
        name: TensorInfo(tuple(tensor.shape), _kind(name, tensor, convolutions))
        for name, tensor in saved.items()
    }


def _kind(name: str, tensor: torch.Tensor, convolutions: set[str]) -> Any:
    if tensor.dim() == 3:
        return "taps"
    if name.endswith((".A_log", ".dt_bias")):
        return "decay" if name.endswith("A_log") else "step"
    if tensor.dim() == 2:
        return "conv1d" if name in convolutions else "matrix"
    if name.endswith(".bias"):
        return "bias"
    # A new model's norms change nothing: those that scale by 1 + w are made of zeros.
    return "norm" if bool((tensor == 1).all()) else "shifted_norm"


def load_model(case: Case, tensors: Tensors, seed: int) -> transformers.PreTrainedModel:
    """Return a case's model in f32, with the weights as its format stores them."""
    state = {
        name: torch.from_numpy(np.ascontiguousarray(weight))
        for name, weight in stored_weights(case, tensors, seed).items()
    }
    with tempfile.TemporaryDirectory() as folder:
        _config(case).save_pretrained(folder)
        save_file(state, Path(folder) / "model.safetensors", {"format": "pt"})
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    assert not any(info.values()), info
    return model.eval()


def _config(case: Case) -> transformers.PreTrainedConfig:
    # Fields of nested objects are changed in place there.
    return transformers.AutoConfig.for_model(**_copied(case.config))


def saved_config(case: Case) -> dict[str, Any]:
    """Return a case's config.json as transformers saves it."""
    with tempfile.TemporaryDirectory() as folder:
        _config(case).save_pretrained(folder)
        saved: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
    return saved


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return list(map(_copied, value)) if isinstance(value, list) else value


def _new_model(case: Case) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_config(_config(case))


@torch.no_grad()
def run_reference(
    case: Case, tensors: Tensors, seed: int, min_margin: float = 0.0
) -> Reference | None:
    """Run a case; None as soon as a greedy step is not clearer than `min_margin`."""
    model = load_model(case, tensors, seed)
    token_ids, margins = make_prompt(case, seed), []
    for _ in range(case.n_greedy):
        plain, halved = _last_logits(model, token_ids)
        second, best = np.sort(plain)[-2:]
        margins.append(best - second)
        if margins[-1] < min_margin or plain.argmax() != halved.argmax():
            return None
        token_ids.append(int(plain.argmax()))
    steps = [0, 1, case.n_greedy // 2, case.n_greedy - 1]
    positions = [0, N_PADDED - 1, *(N_PROMPT - 1 + step for step in steps)]
    pairs = [_last_logits(model, token_ids[: position + 1]) for position in positions]
    logits = np.stack([plain for plain, _ in pairs])
    logits[1] = padded_logits(model, token_ids)
    return Reference(
        tensors=tensors,
        token_ids=token_ids,
        positions=positions,
        logits=logits,
        logits_of_f16_cache=np.stack([halved for _, halved in pairs]),
        margins=np.array(margins, np.float32),
    )


@torch.no_grad()
def padded_logits(model: transformers.PreTrainedModel, token_ids: list[int]) -> F32:
    """Return the logits after the first `N_PADDED` tokens, padded at the left in a batch."""
    n_padding = N_BESIDE - N_PADDED
    rows = [[0] * n_padding + token_ids[:N_PADDED], token_ids[-N_BESIDE:]]
    mask = torch.ones(2, N_BESIDE, dtype=torch.long)
    mask[0, :n_padding] = 0
    logits: torch.Tensor = model(
        torch.tensor(rows),
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        use_cache=False,
    ).logits[0, -1]
    return logits.numpy()


@torch.no_grad()
def unpadded_logits(model: transformers.PreTrainedModel, token_ids: list[int]) -> F32:
    """Return the logits after the last token."""
    logits: torch.Tensor = model(torch.tensor([token_ids]), use_cache=False).logits[0, -1]
    return logits.numpy()


def _last_logits(model: transformers.PreTrainedModel, token_ids: list[int]) -> tuple[F32, F32]:
    """Return the logits after the last token, plain and with an f16 cache."""
    cache = _F16Cache(config=model.config)
    halved = model(torch.tensor([token_ids]), past_key_values=cache, use_cache=True).logits[0, -1]
    return unpadded_logits(model, token_ids), halved.numpy()


@torch.no_grad()
def changes_without(case: Case, tensors: Tensors, seed: int) -> dict[str, float]:
    """Return by how much the prompt's logits change when one parameter at a time is another.

    The change is that of the largest element, relative to the largest logit. The other parameter is
    the same one, reversed along its last axis.
    """
    model = load_model(case, tensors, seed)
    prompt = make_prompt(case, seed)
    before, _ = _last_logits(model, prompt)
    changes = {}
    for name, parameter in model.named_parameters():
        kept = parameter.data
        parameter.data = kept.flip(-1)
        after, _ = _last_logits(model, prompt)
        parameter.data = kept
        changes[name] = float(np.abs(after - before).max() / np.abs(before).max())
    return changes


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
