"""Write a checkpoint as a Hugging Face folder, and that as the MLC folder of the repository."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from model import ModelConfig
from safetensors.torch import save_file
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[3]
MODEL_ID = "Llama-Storyteller-7M-q4f16_1-MLC"
MLC_FOLDER = REPOSITORY / "web" / "models" / MODEL_ID
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
BOS, EOS = 0, 2
"""``<|endoftext|>`` (also the padding) and ``<|im_end|>``."""


def load_checkpoint(path: Path) -> tuple[ModelConfig, dict[str, Tensor], dict[str, Any]]:
    """Return sizes, weights and progress of a checkpoint."""
    state = torch.load(path, weights_only=True, map_location="cpu")
    return ModelConfig(**state["config"]), state["model"], state["progress"]


def hf_config(config: ModelConfig) -> dict[str, Any]:
    """Return config.json of a ``LlamaForCausalLM``."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": BOS,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write indented JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_hf(checkpoint: Path, tokenizer: Path, out: Path) -> None:
    """Write config.json, model.safetensors (float32), tokenizer and generation settings."""
    config, weights, progress = load_checkpoint(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", hf_config(config))
    generation = {
        "bos_token_id": BOS,
        "do_sample": True,
        "eos_token_id": [EOS, BOS],
        "pad_token_id": BOS,
        "repetition_penalty": 1.0,
        "temperature": 0.6,
        "top_p": 0.9,
    }
    write_json(out / "generation_config.json", generation)
    tensors = {name: value.float().contiguous().clone() for name, value in weights.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, out / name)
    print(f"{out}: step {progress['step']}, {progress['tokens']} tokens")


def write_mlc(source: Path, target: Path) -> None:
    """Quantise with the project's own converter."""
    sys.path.insert(0, str(REPOSITORY))
    from py_engine.weights.convert import convert_model

    convert_model(source, target, "q4f16_1")


def main() -> None:
    """Write the Hugging Face folder, with ``--mlc`` also the MLC folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of tokenizer.json")
    parser.add_argument("--hf", type=Path, required=True, help="Hugging Face folder to write")
    parser.add_argument("--mlc", action="store_true", help=f"also write {MLC_FOLDER.name}")
    args = parser.parse_args()
    write_hf(args.checkpoint, args.tokenizer, args.hf)
    if args.mlc:
        write_mlc(args.hf, MLC_FOLDER)


if __name__ == "__main__":
    main()
