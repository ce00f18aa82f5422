"""Golden transcript: the embedded model's greedy answers to the model card's ten prompts.

`golden.json` holds what PyTorch computes with the same 4-bit weights (`evaluate.py` in
`web/models/training/`): nobody's kernels but ours are on trial here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from py_engine.config import prebuilt_app_config
from tests.conftest import EngineWorker

GOLDEN: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "golden.json").read_text(encoding="utf-8")
)
MAX_TOKENS = 320


async def _answer(model_id: str, messages: list[dict[str, str]], max_tokens: int) -> str:
    from py_engine import engine as module

    if getattr(module, "golden_engine", None) is None:
        module.golden_engine = await module.create_mlc_engine(model_id)
    response = await module.golden_engine.chat.completions.create(
        messages=messages, temperature=0, max_tokens=max_tokens
    )
    return response.choices[0].message.content


async def _unload() -> None:
    from py_engine import engine as module

    await module.golden_engine.unload()
    module.golden_engine = None


@pytest.fixture(scope="module")
def answers(engine_worker: EngineWorker) -> Any:
    """The engine's answers, with the embedded model loaded once."""
    model_id = prebuilt_app_config.model_list[0].model_id

    def answer(messages: list[dict[str, str]]) -> str:
        text: str = engine_worker.run(
            _answer, model_id=model_id, messages=messages, max_tokens=MAX_TOKENS
        )
        return text

    yield answer
    engine_worker.run(_unload)


@pytest.mark.parametrize("example", GOLDEN, ids=lambda e: e["messages"][-1]["content"][:30])
def test_greedy_answer(answers: Any, example: dict[str, Any]) -> None:
    assert answers(example["messages"]) == example["answer"]
