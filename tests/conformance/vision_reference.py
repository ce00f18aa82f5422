"""What transformers computes for `vision_recipe.py`; needs torch, transformers and Pillow."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from py_engine.weights.quantization import F32
from tests.conformance.vision_recipe import (
    CASES,
    CONFIG,
    N_TOKENS,
    PREPROCESSOR,
    SOFT,
    Pixels,
    Shapes,
    VisionCase,
    VisionFixture,
    make_pixels,
    make_vision_weights,
)

N_GREEDY = 8

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def _config() -> transformers.Gemma3Config:
    return transformers.Gemma3Config(
        **{name: dict(v) if isinstance(v, dict) else v for name, v in CONFIG.items()}
    )


def checkpoint_shapes() -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors that transformers saves."""
    model = transformers.Gemma3ForConditionalGeneration(_config())
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved = load_file(Path(folder) / "model.safetensors")
    return {name: tuple(tensor.shape) for name, tensor in saved.items()}


def load_vision_model(shapes: Shapes, seed: int) -> transformers.Gemma3ForConditionalGeneration:
    """Return the model in f32."""
    state = {
        name: torch.from_numpy(weight) for name, weight in make_vision_weights(shapes, seed).items()
    }
    with tempfile.TemporaryDirectory() as folder:
        _config().save_pretrained(folder)
        save_file(state, Path(folder) / "model.safetensors", {"format": "pt"})
        model, info = transformers.Gemma3ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
    assert not any(info.values()), info
    return model.eval()


def processed(pixels: list[Pixels]) -> F32:
    """Return what the image processor makes of images, (images, 3, size, size)."""
    processor = Gemma3ImageProcessorPil(**PREPROCESSOR)
    rows: F32 = np.concatenate(
        [processor(image, return_tensors="np")["pixel_values"] for image in pixels]
    )
    return rows


@torch.no_grad()
def last_logits(
    model: transformers.Gemma3ForConditionalGeneration,
    case: VisionCase,
    token_ids: list[int],
    pixel_values: F32,
) -> F32:
    """Return the logits after the last token, computed at once."""
    ids = torch.tensor([token_ids])
    logits: torch.Tensor = model(
        input_ids=ids,
        pixel_values=torch.from_numpy(pixel_values[list(case.images)]),
        token_type_ids=(ids == SOFT).long(),
        use_cache=False,
    ).logits[0, -1]
    return logits.numpy()


@torch.no_grad()
def run_vision(seed: int) -> VisionFixture | None:
    """Run all cases; None where a model draws the token that stands for images."""
    shapes = checkpoint_shapes()
    model = load_vision_model(shapes, seed)
    pixel_values = processed(make_pixels())
    features = model.get_image_features(torch.from_numpy(pixel_values)).pooler_output
    greedy, logits, margins = {}, {}, {}
    for case in CASES:
        ids = case.token_ids([[SOFT] * N_TOKENS] * len(case.images))
        n_prompt, rows = len(ids), []
        for _ in range(N_GREEDY):
            rows.append(last_logits(model, case, ids, pixel_values))
            ids.append(int(rows[-1].argmax()))
            if ids[-1] == SOFT:
                return None
        ordered = np.sort(np.stack(rows), axis=-1)
        greedy[case.name], logits[case.name] = ids[n_prompt:], np.stack(rows)
        margins[case.name] = float((ordered[:, -1] - ordered[:, -2]).min())
    return VisionFixture(seed, shapes, pixel_values, features.numpy(), greedy, logits, margins)
