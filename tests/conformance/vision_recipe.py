"""A tiny Gemma 3 with a vision tower: configuration, weights, images and prompts, of NumPy alone.

`make_vision_fixtures.py` gives transformers the same ones. Sizes are chosen to be awkward: patches
and the tower's MLP have columns that are no multiple of 32, images are larger than the window of
the local layers, and pictures have other sizes than the tower.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from py_engine.models.images import HostImage
from py_engine.weights.quantization import F32
from tests.conformance.recipe import FOLDER, draw_uniform
from tests.support.safetensors_file import write_safetensors

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

BOS, SOFT, BEGIN, END = 2, 290, 291, 292
N_TOKENS = 16

CONFIG: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "boi_token_index": BEGIN,
    "eoi_token_index": END,
    "image_token_index": SOFT,
    "mm_tokens_per_image": N_TOKENS,
    "text_config": {
        "model_type": "gemma3_text",
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "max_position_embeddings": 256,
        "sliding_window": 12,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "vision_use_head": False,
        "hidden_size": 64,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 48,
        "patch_size": 6,
    },
}
PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "Gemma3ImageProcessor",
    "size": {"height": 48, "width": 48},
    "resample": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "rescale_factor": 0.00392156862745098,
}
SIZES = [(61, 37), (130, 150)]
"""Width and height of the two images: one is made larger in one direction, one smaller in both."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class VisionCase:
    """A prompt: ids of text, and None for each image in turn, of those that `images` numbers."""

    name: str
    parts: tuple[tuple[int, ...] | None, ...]
    images: tuple[int, ...]

    def token_ids(self, images: Sequence[Sequence[int]]) -> list[int]:
        """Return the prompt with these ids for the rows of its images."""
        rest = iter(images)
        ids: list[int] = []
        for part in self.parts:
            ids += [BEGIN, *next(rest), END] if part is None else part
        return ids


CASES = [
    VisionCase("one image", ((BOS, 17, 230, 9), None, (44, 61, 7)), (0,)),
    VisionCase("two images", ((BOS, 5), None, (120, 81, 33, 250, 19), None, (101,)), (0, 1)),
    VisionCase("the same image twice", ((BOS,), None, None, (15, 16, 17)), (1, 1)),
]


def make_pixels() -> list[Pixels]:
    """Return the images, each (height, width, 3): gradients with noise on them."""
    found = []
    for number, (width, height) in enumerate(SIZES):
        bits = np.random.PCG64(7 + number)
        noise = draw_uniform(bits, (height, width, 3)) * 60
        y, x = np.mgrid[:height, :width]
        ramps = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=-1)
        found.append(np.clip(ramps + noise, 0, 255).astype(np.uint8))
    return found


def host_image(pixels: Pixels) -> HostImage:
    """Return an image as models take it."""
    height, width, _ = pixels.shape
    rgba = np.concatenate([pixels, np.full((height, width, 1), 255, np.uint8)], axis=-1)
    return HostImage(width, height, rgba.tobytes(), f"{zlib.crc32(rgba.tobytes()):x}")


def make_vision_weights(shapes: Shapes, seed: int) -> dict[str, F32]:
    """Draw the weights of a checkpoint, by the names that transformers saves."""
    return {name: _draw(name, shape, seed) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...], seed: int) -> F32:
    uniform = draw_uniform(np.random.PCG64(seed + zlib.crc32(name.encode())), shape)
    if len(shape) == 1:
        return _vector(name, uniform).astype(np.float32)
    columns = shape[0] if name.endswith("mm_input_projection_weight") else np.prod(shape[1:])
    gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.0
    if name.endswith("embed_tokens.weight"):
        gain = 1 / 8
    return (gain * np.sqrt(3.0 / columns) * uniform).astype(np.float32)


def _vector(name: str, uniform: F32) -> F32:
    if name.endswith(".bias"):
        return 0.3 * uniform
    # LayerNorms multiply by w, all others by 1 + w.
    if "layer_norm" in name or "post_layernorm" in name:
        return 1 + 0.3 * uniform
    # Gemma scales embeddings up: without a gain its tied head would see little else.
    gain = 8.0 if name.endswith("language_model.model.norm.weight") else 1.0
    return gain * (1 + 0.3 * uniform) - 1


@dataclass(frozen=True)
class VisionFixture:
    """What transformers computes: of an image its normalised pixels and rows, of a case its logits.

    `pixel_values` (images, 3, size, size), `rows` (images, tokens, hidden). By case: `token_ids`
    of prompt and greedy continuation, `logits` before each of the latter.
    """

    seed: int
    shapes: Shapes
    pixel_values: F32
    rows: F32
    greedy: dict[str, list[int]]
    logits: dict[str, F32]
    margins: dict[str, float]


_FILE = FOLDER / "gemma3_vision.npz"


def store_vision_fixture(fixture: VisionFixture) -> None:
    """Write the fixture's file."""
    np.savez_compressed(
        _FILE,
        seed=np.array(fixture.seed),
        shapes=np.array(json.dumps({name: list(s) for name, s in fixture.shapes.items()})),
        pixel_values=np.round((fixture.pixel_values * 0.5 + 0.5) * 255).astype(np.uint8),
        rows=fixture.rows,
        **{f"greedy {name}": np.array(ids) for name, ids in fixture.greedy.items()},
        **{f"logits {name}": rows for name, rows in fixture.logits.items()},
        **{f"margin {name}": np.array(margin) for name, margin in fixture.margins.items()},
    )


def load_vision_fixture() -> VisionFixture:
    """Return the stored fixture."""
    with np.load(_FILE) as stored:
        names = [case.name for case in CASES]
        return VisionFixture(
            seed=int(stored["seed"]),
            shapes={name: tuple(s) for name, s in json.loads(str(stored["shapes"])).items()},
            pixel_values=(stored["pixel_values"].astype(np.float32) / 255 - 0.5) / 0.5,
            rows=stored["rows"],
            greedy={name: stored[f"greedy {name}"].tolist() for name in names},
            logits={name: stored[f"logits {name}"] for name in names},
            margins={name: float(stored[f"margin {name}"]) for name in names},
        )


def write_vision_folder(fixture: VisionFixture, folder: Path, dtype: str = "F32") -> None:
    """Write the model as Hugging Face has it, without a tokenizer."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    weights = make_vision_weights(fixture.shapes, fixture.seed)
    write_safetensors(folder / "model.safetensors", weights, dtype)
