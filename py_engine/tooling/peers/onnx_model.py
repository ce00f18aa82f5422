"""A model of a real model's shapes with random weights in 4 bits, as ONNX for transformers.js."""

from __future__ import annotations

import json
from pathlib import Path

from py_engine.tooling.gpu_bench.random_model import model_config
from py_engine.tooling.steps import Step, run_command

_SCRIPT = Path(__file__).with_name("build_onnx.py")
_CONTEXT = 4096


def write_onnx(python: Path, shapes: str, folder: Path) -> None:
    """Write the files of a model of these shapes, one of `known_shapes`.

    `python` is that of an environment with PyTorch and onnxruntime-genai.
    Raises SetupError.
    """
    config = model_config(shapes)
    sizes = {**config.model_config, "max_position_embeddings": _CONTEXT}
    described = json.dumps({"model_type": config.model_type, **sizes})
    Step(
        name="onnx",
        does=f"write {shapes} with random weights as ONNX",
        depends_on="",
        makes=[],
        remedy="check the free space on the disk",
    ).perform(lambda: run_command("onnx", [python, _SCRIPT, described, folder]))
