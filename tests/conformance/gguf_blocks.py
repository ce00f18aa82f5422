"""Models of random GGUF blocks, in every type at once, and the same models in f32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, cast

import numpy as np

from py_engine.config import ChatConfig
from py_engine.kernels.formats import GGUF_FORMATS, GgufFormat
from py_engine.kernels.reference_formats import matrix_values, packed_blocks
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.registry import decoder_spec
from py_engine.weights.gguf_names import gguf_names
from py_engine.weights.parameters import MatrixParameter, layer_names
from tests.conformance.cases import CONTEXT
from tests.conformance.gguf_models import encoded, gguf_metadata, numbered_vocabulary
from tests.kernels.cases import gguf_blocks
from tests.support.gguf_file import FileTensor, gguf_bytes

_SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_hidden_layers": 3,
    "vocab_size": 203,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_SIZES, "model_type": "llama", "tie_word_embeddings": False},
    "qwen3": {**_SIZES, "model_type": "qwen3"},
    "gemma2": {
        **_SIZES,
        "model_type": "gemma2",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 24,
        "query_pre_attn_scalar": 64,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 4.0,
    },
    "phi3": {**_SIZES, "model_type": "phi3", "tie_word_embeddings": False},
}
"""One model of each way in which matrices are stacked and scaled."""

_FUSED = {"phi3": {"blk.0.attn_qkv.weight", "blk.0.ffn_up.weight"}}


def mixed_models(
    family: str, seed: int, formats: Sequence[GgufFormat] = GGUF_FORMATS
) -> tuple[bytes, bytes]:
    """Return a model whose matrices take turns in the types of GGUF, and the same one in f32."""
    native, plain = mixed_tensors(family, seed, formats)
    head = {
        **gguf_metadata(CONFIGS[family]),
        **numbered_vocabulary(CONFIGS[family]["vocab_size"]),
    }
    return gguf_bytes(head, native), gguf_bytes(head, plain)


def mixed_tensors(
    family: str, seed: int, formats: Sequence[GgufFormat] = GGUF_FORMATS
) -> tuple[dict[str, FileTensor], dict[str, FileTensor]]:
    """Return the tensors of both, by their names."""
    native: dict[str, FileTensor] = {}
    plain: dict[str, FileTensor] = {}
    types = cycle(formats)
    form = formats[0]
    rng = np.random.default_rng(seed)
    for name, shape in _tensors(CONFIGS[family], _FUSED.get(family, set())):
        if len(shape) == 1:
            values = rng.uniform(0.7, 1.3, shape).astype(np.float32)
            native[name] = plain[name] = encoded(values, "F32")
        else:
            # Both halves of a gated layer go through one kernel.
            form = form if name.endswith(".ffn_up.weight") else next(types)
            native[name], plain[name] = _matrix(rng, form, *shape)
    return native, plain


def _tensors(config: Mapping[str, Any], fused: set[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of a file's tensors."""
    fields = {"quantization": "gguf", "context_window_size": CONTEXT, "model_config": config}
    data = {**fields, "model_type": config["model_type"], "vocab_size": config["vocab_size"]}
    spec = decoder_spec(ChatConfig.from_json(data))
    names = layer_names(gguf_names(config["model_type"], fused), spec.n_layers)
    for parameter in decoder_parameters(spec):
        stored = names[parameter.role].names
        if not isinstance(parameter, MatrixParameter):
            sizes = parameter.block_sizes if len(stored) > 1 else (parameter.size,)
            yield from zip(stored, ((size,) for size in sizes), strict=True)
            continue
        rows = parameter.row_blocks if len(stored) > 1 else (parameter.rows,)
        for name, count in zip(stored, rows, strict=True):
            yield f"{name}.weight", (count, parameter.columns)


def _matrix(
    rng: np.random.Generator, form: GgufFormat, rows: int, columns: int
) -> tuple[FileTensor, FileTensor]:
    """Return random blocks, scaled so that the matrix keeps the size of what it multiplies."""
    blocks = gguf_blocks(rng, form, rows, columns)
    size = float(matrix_values(form, rows, columns, packed_blocks(form, blocks)).std())
    blocks = gguf_blocks(rng, form, rows, columns, scale=0.1 / (size * columns**0.5))
    values = matrix_values(form, rows, columns, packed_blocks(form, blocks))
    native = FileTensor((rows, columns), cast(str, form).upper(), blocks.tobytes())
    return native, encoded(values, "F32")
