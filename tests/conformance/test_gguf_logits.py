"""GGUF files on our decoder: logits and greedy tokens.

The models of `cases.py` are written with floats, so that their fixtures' results, transformers',
hold for them. Models of random blocks in all types of GGUF at once are compared with the same
models in f32, whose values of the blocks are those of PyPI's gguf (tests/kernels).
"""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.models.encoder_loader import load_embedder
from py_engine.models.loader import load_model
from py_engine.weights.checkpoint import open_checkpoint
from py_engine.weights.quantization import stored_value
from tests.conformance.cases import CASES, PREFILL_CHUNK_SIZE
from tests.conformance.encoder_fixtures import encoder_names, load_encoder_fixture
from tests.conformance.encoder_recipe import make_encoder_weights
from tests.conformance.fixtures import load_fixture
from tests.conformance.gguf_blocks import CONFIGS, mixed_models, mixed_tensors
from tests.conformance.gguf_models import (
    gguf_model,
    gguf_name,
    hf_weight,
    is_expressible,
    model_bytes,
)
from tests.conformance.running import Decoded, decoded, drive
from tests.conformance.test_decoder import (
    F16_CACHE_TOLERANCE,
    TOLERANCE,
    assert_agrees,
    relative_error,
)
from tests.conformance.test_encoder import assert_close
from tests.support.engine_worker import EngineWorker
from tests.support.memory_source import MemorySource
from tests.support.numpy_device import NumpyDevice

CHAT_OPTS = {"prefill_chunk_size": PREFILL_CHUNK_SIZE}
DTYPES = {"q0f16": "F16", "q0f32": "BF16"}
"""The 16-bit type in which a case's weights are exact; those of 4-bit formats are in f32."""

PROMPT = [7 * index % 200 for index in range(PREFILL_CHUNK_SIZE + 9)]
N_TOKENS = 5


def run(data: bytes, prompt: list[int], n_tokens: int, prefix_lengths: list[int]) -> Decoded:
    device = NumpyDevice()

    async def load_and_drive() -> dict[str, Any]:
        checkpoint = await open_checkpoint(MemorySource({"m.gguf": data}, entry="m.gguf"))
        config = ChatConfig.from_json(checkpoint.config_json, chat_opts=CHAT_OPTS)
        model = await load_model(device, checkpoint, config, lambda progress: None)
        found = await drive(model, prompt, n_tokens, prefix_lengths)
        model.destroy()
        return found

    found = asyncio.run(load_and_drive())
    assert device.live_buffers == []
    return decoded(found)


@pytest.mark.parametrize("name", [case.name for case in CASES if is_expressible(case.config)])
def test_every_family_as_gguf(name: str) -> None:
    fixture = load_fixture(name)
    dtype = DTYPES.get(fixture.case.quantization, "F32")
    data = gguf_model(fixture.case, fixture.seed, lambda name: dtype)
    prompt, n_tokens = fixture.prompt_ids, len(fixture.greedy_ids)
    assert_agrees(fixture, run(data, prompt, n_tokens, fixture.prefix_lengths))


@pytest.mark.parametrize("name", encoder_names())
def test_embeddings_of_a_gguf_file(name: str) -> None:
    """Its vectors are means that are normalised, as the file's defaults are."""
    fixture = load_encoder_fixture(name)
    case = fixture.case
    weights = {
        name: stored_value(weight, case.quantization)
        for name, weight in make_encoder_weights(case).items()
    }
    data, device = model_bytes(case.config, weights, lambda name: "F32"), NumpyDevice()

    async def embed() -> list[Any]:
        checkpoint = await open_checkpoint(MemorySource({"m.gguf": data}, entry="m.gguf"))
        config = ChatConfig.from_json(checkpoint.config_json, chat_opts={"max_batch_size": 8})
        model = await load_embedder(device, checkpoint, config, lambda progress: None)
        vectors = await model.embed(fixture.sequences)
        model.destroy()
        return vectors

    assert_close(np.array(asyncio.run(embed())), fixture.vectors("mean", True))
    assert device.live_buffers == []


@pytest.mark.parametrize("family", CONFIGS)
def test_blocks_of_all_types_in_one_model(family: str) -> None:
    native, plain = (run(data, PROMPT, N_TOKENS, [1]) for data in mixed_models(family, seed=3))
    assert native.tokens == plain.tokens
    for ours, theirs in zip(
        (*native.logits, *native.prefix_logits), (*plain.logits, *plain.prefix_logits), strict=True
    ):
        assert relative_error(ours[None], theirs[None]) < 1e-6
        assert np.ptp(theirs) > 0.1


async def _run_in_worker(data: bytes, prompt: list[int], n_tokens: int) -> dict[str, Any]:
    import js

    from py_engine.config import ChatConfig
    from py_engine.gpu.adapter import request_device
    from py_engine.models.loader import load_model
    from py_engine.weights.checkpoint import open_checkpoint

    class File:
        url, entry = "memory:/", "m.gguf"

        async def size(self, path):
            return len(data)

        async def read_range(self, path, begin, end, on_bytes=None):
            array = js.Uint8Array.new(end - begin)
            array.assign(data[begin:end])
            return array.buffer

    device = await request_device()
    checkpoint = await open_checkpoint(File())
    config = ChatConfig.from_json(checkpoint.config_json, chat_opts={"prefill_chunk_size": 32})
    model = await load_model(device, checkpoint, config, lambda progress: None)
    await model.reserve(1)  # after which all kernels are compiled
    try:
        return await drive(model, prompt, n_tokens, [])
    finally:
        model.destroy()
        device.destroy()


_WORKER_CODE = "\n".join(
    [
        "from __future__ import annotations",
        "from typing import Any",
        inspect.getsource(drive),
        inspect.getsource(_run_in_worker),
        "await _run_in_worker(data, prompt, n_tokens)",
    ]
)


def test_k_quants_on_webgpu(engine_worker: EngineWorker) -> None:
    """As in a file of Q4_K_M: the embedding, values and down in another type than the others."""
    native, plain = mixed_models("llama", 3, ("q6_k", "q4_k", "q4_k", "q6_k", "q4_k", "q4_k"))
    found = engine_worker.run(_WORKER_CODE, data=native, prompt=PROMPT, n_tokens=N_TOKENS)
    with ThreadPoolExecutor(1) as thread:  # Playwright has this one's event loop
        theirs = thread.submit(run, plain, PROMPT, N_TOKENS, []).result()
    ours = decoded(found)
    assert ours.tokens == theirs.tokens
    for logits, expected in zip(ours.logits, theirs.logits, strict=True):
        assert relative_error(logits[None], expected[None]) < F16_CACHE_TOLERANCE


@pytest.mark.parametrize("family", CONFIGS)
def test_live_blocks_of_all_types_equal_transformers(family: str) -> None:
    torch = pytest.importorskip("torch", reason="the live oracle needs torch")
    transformers = pytest.importorskip("transformers", reason="the oracle needs transformers")

    config = CONFIGS[family]
    _, plain = mixed_tensors(family, seed=3)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), attn_implementation="eager"
    )
    state = {}
    for name in model.state_dict():
        ours = gguf_name(family, name)
        if ours in plain:
            values = np.frombuffer(plain[ours].data, np.float32).reshape(plain[ours].shape)
            state[name] = torch.from_numpy(hf_weight(config, ours, values).copy())
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) == ({"lm_head.weight"} if config["tie_word_embeddings"] else set())
    model.tie_weights()
    model.float().eval()
    native, _ = mixed_models(family, seed=3)
    ours_run, tokens = run(native, PROMPT, N_TOKENS, []), list(PROMPT)
    for token, logits in zip(ours_run.tokens, ours_run.logits, strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].numpy()
        assert relative_error(logits[None], expected[None]) < TOLERANCE
        assert token == expected.argmax()
        tokens.append(token)
