"""A decoder of a real model's shapes with random weights, through the engine's own planning."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from py_engine.chat_config import ChatConfig
from py_engine.gpu.types import Buffer, Device
from py_engine.kernels.tuning import Tuning
from py_engine.models.attention_limits import most_cache_bytes
from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.decoder_build import build_decoder
from py_engine.models.decoder_steps import DecoderSteps, decoder_steps
from py_engine.models.registry import decoder_spec, model_parameters
from py_engine.models.sampler import sampler_kernels
from py_engine.models.spec import DecoderSpec
from py_engine.tooling.gpu_bench.random_data import RandomData, weight_kind
from py_engine.tooling.model_shapes import model_shapes
from py_engine.weights.uniform import uniform_weights

CONTEXT = 16384
QUANTIZATION = "q4f16_1"
GREEDY = SamplingParams(temperature=0)

ARCHITECTURES = {"Llama": "llama", "SmolLM2": "llama", "Qwen2": "qwen2", "tiny": "llama"}
"""`model_type` by what a model's name begins with."""

_TINY = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 2048,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
}


def known_shapes() -> list[str]:
    """Return the names that `model_config` takes."""
    names = (name for name in model_shapes() if name.startswith(tuple(ARCHITECTURES)))
    return ["tiny", *names]


def model_config(name: str) -> ChatConfig:
    """Return the configuration of a model of the catalogue, or of "tiny", in 4 bits."""
    shapes: Mapping[str, Any] = _TINY if name == "tiny" else model_shapes()[name].config
    architecture = next(kind for start, kind in ARCHITECTURES.items() if name.startswith(start))
    data = {
        "model_type": architecture,
        "quantization": QUANTIZATION,
        "context_window_size": CONTEXT,
        "model_config": shapes,
    }
    return ChatConfig.from_json(data)


@dataclass(frozen=True)
class RandomModel:
    """A decoder, and what it was made of."""

    decoder: Decoder
    spec: DecoderSpec
    steps: DecoderSteps
    weights: Mapping[str, Buffer]

    def bytes_of(self, name: str) -> int:
        """Return the bytes of a weight's buffer, 0 for one that is no weight."""
        return self.weights[name].nbytes if name in self.weights else 0


async def random_model(
    device: Device, config: ChatConfig, data: RandomData, tuning: Tuning
) -> RandomModel:
    """Build a model's decoder as loading does, but fill its weights on the GPU."""
    spec = decoder_spec(config)
    plan = uniform_weights(
        model_parameters(config).parameters, config.quantization, "mlc", device.limits
    )
    most_bytes = most_cache_bytes(device.limits)
    steps = decoder_steps(spec, plan.layouts, most_bytes, tuning)
    specs = [*steps.kernels, *sampler_kernels(spec.active_vocab_size, tuning)]
    kernels = dict(zip(specs, await device.compile(specs), strict=True))
    async with device.check("making weights"):
        weights = {
            name: data.buffer(nbytes, name, weight_kind(name))
            for name, nbytes in plan.buffers.items()
        }
    decoder = await build_decoder(device, spec, steps, kernels, weights)
    return RandomModel(decoder, spec, steps, weights)


async def place(model: RandomModel, data: RandomData, position: int, n_more: int) -> None:
    """Let the sequence have `position` tokens with random keys and values, and room for more."""
    decoder = model.decoder
    decoder.start(GREEDY)
    await decoder.reserve(position + n_more)
    for buffer in decoder._cache.pool.buffers.values():
        data.fill(buffer, "halfs")
    set_position(decoder, position)


def set_position(decoder: Decoder, position: int) -> None:
    """Let a sequence have `position` tokens, the last drawn one being number 1."""
    # Past the decoder's own methods, which would have to compute the tokens.
    decoder._position = position
    decoder._write_state(array("I", [position, 1, 1, 0]))
