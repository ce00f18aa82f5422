"""What transformers computes for an encoder's case; needs torch and transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import transformers

from py_engine.weights.quantization import stored_value
from tests.conformance.cases import Case
from tests.conformance.encoder_fixtures import TOKENIZER, EncoderFixture
from tests.conformance.encoder_recipe import (
    TEXT_CASE,
    TEXTS,
    make_encoder_weights,
    make_sequences,
)


@torch.no_grad()
def run_encoder(case: Case) -> EncoderFixture:
    """Run a case in f32 on the weights as its format stores them, in one padded batch.

    Pooling is what sentence-transformers does: modules Pooling (cls or mean) and Normalize.
    """
    sequences = _text_ids() if case.name == TEXT_CASE else make_sequences(case)
    ids, mask = _padded(sequences)
    hidden = encoder_model(case)(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    pooled = {
        "cls": hidden[:, 0],
        "mean": (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9),
    }
    return EncoderFixture(
        case=case,
        sequences=sequences,
        hidden_states=hidden[mask.bool()].numpy(),
        pooled={name: vectors.numpy() for name, vectors in pooled.items()},
        normalized={
            name: torch.nn.functional.normalize(vectors, p=2, dim=1).numpy()
            for name, vectors in pooled.items()
        },
    )


def encoder_model(case: Case) -> transformers.PreTrainedModel:
    """Return a case's BertModel, its weights as the format stores them."""
    config = transformers.AutoConfig.for_model(**case.config)
    config._attn_implementation = "eager"
    model = transformers.BertModel(config, add_pooling_layer=False)
    state = {
        name: torch.from_numpy(stored_value(weight, case.quantization))
        for name, weight in make_encoder_weights(case).items()
    }
    model.load_state_dict(state)
    return model.float().eval()


def _text_ids() -> list[list[int]]:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER))
    found: list[list[int]] = tokenizer(list(TEXTS))["input_ids"]
    return found


def _padded(sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, sequences))
    ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in sequences])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in sequences])
    return ids, mask
