"""What a model will take on the GPU, told by its configuration alone."""

from __future__ import annotations

from py_engine.config import ChatConfig
from py_engine.gpu.types import Limits
from py_engine.kernels.tuning import PLAIN
from py_engine.models.attention_limits import most_cache_bytes
from py_engine.models.decoder_memory import decoder_memory
from py_engine.models.decoder_steps import decoder_steps
from py_engine.models.encoder import encoder_memory
from py_engine.models.memory_plan import MemoryPlan
from py_engine.models.registry import ENCODERS, decoder_spec, encoder_spec, model_parameters
from py_engine.weights.parameters import FileKind
from py_engine.weights.uniform import uniform_weights


def estimate_memory(
    config: ChatConfig, kind: FileKind = "mlc", limits: Limits | None = None
) -> MemoryPlan:
    """Return the plan of the model that `config` describes, in files of `kind`.

    It is the plan that loading makes of such files when all follow the configuration's
    `quantization`. `limits` are those of WebGPU where none are given; they change how buffers are
    split, not how large they are together. `active_vocab_size` is as the configuration has it,
    while loading lowers it to the tokenizer's.
    Errors: those of the family, UnknownArchitectureError, UnknownQuantizationError,
    LimitSupportError.
    """
    limits = limits or Limits()
    parameters = model_parameters(config).parameters
    weights = uniform_weights(parameters, config.quantization, kind, limits)
    if config.model_type in ENCODERS:
        return encoder_memory(encoder_spec(config), weights.gpu_bytes, config.quantization)
    spec = decoder_spec(config)
    steps = decoder_steps(spec, weights.layouts, most_cache_bytes(limits), PLAIN)
    return decoder_memory(spec, steps, weights.gpu_bytes, config.quantization)
