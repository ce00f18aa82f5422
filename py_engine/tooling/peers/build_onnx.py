"""Writes a model with random weights for transformers.js: ONNX in 4 bits, as it is found on hubs.

Runs in an environment of its own, with PyTorch, transformers and onnxruntime-genai:

    python build_onnx.py '{"model_type": "llama", "hidden_size": 576, ...}' FOLDER
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

END = "<|endoftext|>"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
END_FIELDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def main(config: dict[str, Any], folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint, built = Path(temporary) / "checkpoint", Path(temporary) / "onnx"
        write_checkpoint(config, checkpoint)
        build(checkpoint, built)
        arrange(checkpoint, built, folder)


def write_checkpoint(config: dict[str, Any], folder: Path) -> None:
    """Write random weights, and a tokenizer, without which the builder does not work."""
    torch.manual_seed(0)
    configured = AutoConfig.for_model(**config, bos_token_id=0, eos_token_id=0)
    AutoModelForCausalLM.from_config(configured).half().save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    fillers = [f"filler{i}" for i in range(config["vocab_size"] - 1 - len(letters))]
    vocabulary = {token: i for i, token in enumerate([END, *letters, *fillers])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)


def build(checkpoint: Path, folder: Path) -> None:
    """Make ONNX of a checkpoint; in f32 but for the weights, as SwiftShader has no f16."""
    command = ("-m", "onnxruntime_genai.models.builder", "-i", checkpoint, "-o", folder)
    options = ("-p", "int4", "-e", "webgpu", "--extra_options", "use_webgpu_fp32=true")
    subprocess.run([sys.executable, *command, *options], check=True)


def arrange(checkpoint: Path, built: Path, folder: Path) -> None:
    """Lay files out as transformers.js looks for them; without an end, so that replies go on."""
    (folder / "onnx").mkdir(parents=True)
    model = onnx.load(built / "model.onnx")
    config = json.loads((checkpoint / "config.json").read_text())
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            # transformers.js takes sizes that it does not know for 0.
            if size.dim_param == "kv_cache_dim":
                size.dim_value = config["hidden_size"] // config["num_attention_heads"]
    data = "model_q4.onnx_data"
    onnx.save_model(model, folder / "onnx/model_q4.onnx", save_as_external_data=True, location=data)
    without_end = {name: value for name, value in config.items() if name not in END_FIELDS}
    (folder / "config.json").write_text(json.dumps(without_end))
    (folder / "generation_config.json").write_text("{}")
    for name in TOKENIZER_FILES:
        shutil.copyfile(checkpoint / name, folder / name)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
