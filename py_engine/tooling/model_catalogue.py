"""Writes `py_engine/model_list.json`: the site's own models, then all records of WebLLM's package.

    .venv/bin/python -m py_engine.tooling.model_catalogue [--fetch]

WebLLM's records are those of the npm package's own list, so that ids, addresses, overrides and
libraries are those that its users know. `webllm_model_list.json` holds them as they are published;
`--fetch` takes them from the package again. Changed in each:

* `required_features` is left out. It says what WebLLM's compiled library needs; our kernels need no
  feature for any build, f16 ones included, because they fall back where an adapter lacks one.
* `architecture` is added, the model_type of the model's mlc-chat-config.json. A record whose
  architecture is not here stays in the list, and loading it is refused before anything is fetched.
* `vram_required_MB` is what our planner says (`model_shapes.py`): MB of 10^6 bytes of all buffers
  once a sequence fills the record's context. `buffer_size_required_bytes` is left out, because
  matrices and caches are split to what any adapter binds. Models whose shapes are not in
  `model_shapes.json` keep WebLLM's figures.

Source: npm `@mlc-ai/web-llm`, `prebuiltAppConfig` (Apache-2.0).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from py_engine.config import CHAT_CONFIG_FILE, ChatConfig
from py_engine.models.memory_estimate import estimate_memory
from py_engine.tooling.environment import Node, ensure_node
from py_engine.tooling.model_shapes import record_megabytes, required_megabytes
from py_engine.tooling.steps import ROOT, run_command

Record = dict[str, Any]

PACKAGE = "@mlc-ai/web-llm@0.2.86"
MODEL_LIST = ROOT / "py_engine" / "model_list.json"
PUBLISHED_LIST = ROOT / "py_engine" / "tooling" / "webllm_model_list.json"

OWN_RECORDS: tuple[Record, ...] = (
    {
        "model": "models/Llama-Storyteller-7M-q4f16_1-MLC/",
        "model_id": "Llama-Storyteller-7M-q4f16_1-MLC",
        "low_resource_required": True,
        "architecture": "llama",
    },
)

# The first pattern that is found in a model's id gives its architecture.
ARCHITECTURES: tuple[tuple[str, str], ...] = (
    (r"^DeepSeek-R1-Distill-Qwen", "qwen2"),
    (r"Mistral-7B|^WizardMath", "mistral"),
    (r"Llama|SmolLM2", "llama"),
    (r"^Ministral-3", "ministral3"),
    (r"^Phi-3\.5-vision", "phi3_v"),
    (r"^Phi-[34]", "phi3"),
    (r"^phi-(2|1_5)", "phi"),
    (r"^gemma-4", "gemma4"),
    (r"^gemma3", "gemma3_text"),
    (r"^gemma-2-", "gemma2"),
    (r"^gemma-2b", "gemma"),
    (r"^Qwen3\.5", "qwen3_5"),
    (r"^Qwen3-", "qwen3"),
    (r"^Qwen2", "qwen2"),
    (r"^stablelm", "stablelm"),
    (r"^RedPajama", "gpt_neox"),
    (r"^OLMo-2", "olmo2"),
    (r"^snowflake-arctic-embed", "bert"),
)

_PRINT_RECORDS = """
import(process.argv[1]).then(({prebuiltAppConfig}) =>
  console.log(JSON.stringify(prebuiltAppConfig.model_list)));
"""


def architecture_of(model_id: str) -> str:
    """Return the architecture of one of WebLLM's models. Raises ValueError for an unknown name."""
    for pattern, architecture in ARCHITECTURES:
        if re.search(pattern, model_id):
            return architecture
    raise ValueError(f"{model_id} is of no known family: add a pattern to ARCHITECTURES.")


def our_record(record: Record) -> Record:
    """Return one of WebLLM's records as ours."""
    architecture = architecture_of(record["model_id"])
    ours = {**record, "architecture": architecture}
    ours.pop("required_features", None)
    megabytes = record_megabytes(ours)
    if megabytes is None:
        return ours
    ours.pop("buffer_size_required_bytes", None)
    return {**ours, "vram_required_MB": megabytes}


def own_record(record: Record) -> Record:
    """Return the record of a model on this site with its `vram_required_MB`."""
    text = (ROOT / "web" / record["model"] / CHAT_CONFIG_FILE).read_text(encoding="utf-8")
    plan = estimate_memory(ChatConfig.from_json(json.loads(text)))
    return {**record, "vram_required_MB": required_megabytes(plan)}


def catalogue(published: Iterable[Record]) -> list[Record]:
    """Return all records, given those of WebLLM."""
    return [*map(own_record, OWN_RECORDS), *map(our_record, published)]


def memory_report(published: Sequence[Record]) -> str:
    """Return a line for each record whose figure is ours: it, WebLLM's, and their ratio."""
    figures = [
        (record["model_id"], megabytes, record["vram_required_MB"])
        for record in published
        if (megabytes := record_megabytes(our_record(record))) is not None
    ]
    lines = [f"{name:<46}{ours:>7} MB{ours / theirs:>8.3f}" for name, ours, theirs in figures]
    median = statistics.median(ours / theirs for _, ours, theirs in figures)
    return "\n".join([*lines, f"{len(figures)} records, median of WebLLM's figure {median:.3f}"])


def json_text(records: Iterable[Record]) -> str:
    """Return the file's text, one record a line."""
    return "[\n" + ",\n".join(f"  {json.dumps(record)}" for record in records) + "\n]\n"


def published_records(node: Node, folder: Path) -> list[Record]:
    """Return the list of the npm package, which is unpacked in `folder`."""
    options: list[str | Path] = ["pack", PACKAGE, "--pack-destination", folder]
    run_command("npm", [*node.npm, *options], folder, node.environment())
    (archive,) = folder.glob("*.tgz")
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    bundle = (folder / "package" / "lib" / "index.js").as_uri()
    command: list[str | Path] = [node.node, "--eval", _PRINT_RECORDS, bundle]
    printed = subprocess.run(command, check=True, capture_output=True, text=True)
    records: list[Record] = json.loads(printed.stdout)
    return records


def fetch_published() -> None:
    """Take WebLLM's list from its package into `PUBLISHED_LIST`."""
    with tempfile.TemporaryDirectory() as folder:
        records = published_records(ensure_node(), Path(folder))
    PUBLISHED_LIST.write_text(json_text(records), encoding="utf-8")
    print(f"{PUBLISHED_LIST}: {len(records)} records of {PACKAGE}")


def main() -> None:
    """Write our list, after taking WebLLM's anew if that is asked for."""
    parser = argparse.ArgumentParser(description="Write py_engine/model_list.json.")
    parser.add_argument("--fetch", action="store_true", help=f"take the list from {PACKAGE} first")
    if parser.parse_args().fetch:
        fetch_published()
    published: list[Record] = json.loads(PUBLISHED_LIST.read_text(encoding="utf-8"))
    MODEL_LIST.write_text(json_text(catalogue(published)), encoding="utf-8")
    print(memory_report(published))
    print(f"{MODEL_LIST}: {len(OWN_RECORDS)} own records and {len(published)} of {PACKAGE}")


if __name__ == "__main__":
    main()
