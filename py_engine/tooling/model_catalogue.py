"""Writes `py_engine/model_list.json`: the site's own models, then all records of WebLLM's package.

    .venv/bin/python -m py_engine.tooling.model_catalogue

WebLLM's records are taken from the npm package's own list, so that ids, addresses, overrides and
libraries are those that its users know. Changed in each:

* `required_features` is left out. It says what WebLLM's compiled library needs; our kernels need no
  feature for any build, f16 ones included, because they fall back where an adapter lacks one.
* `architecture` is added, the model_type of the model's mlc-chat-config.json. A record whose
  architecture is not here stays in the list, and loading it is refused before anything is fetched.

Source: npm `@mlc-ai/web-llm`, `prebuiltAppConfig` (Apache-2.0).
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from py_engine.tooling.environment import Node, ensure_node
from py_engine.tooling.steps import ROOT, run_command

PACKAGE = "@mlc-ai/web-llm@0.2.86"
MODEL_LIST = ROOT / "py_engine" / "model_list.json"

OWN_RECORDS: tuple[dict[str, Any], ...] = (
    {
        "model": "models/Llama-Storyteller-7M-q4f16_1-MLC/",
        "model_id": "Llama-Storyteller-7M-q4f16_1-MLC",
        "vram_required_MB": 16,
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


def our_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return one of WebLLM's records as ours."""
    kept = {name: value for name, value in record.items() if name != "required_features"}
    return {**kept, "architecture": architecture_of(record["model_id"])}


def json_text(records: Iterable[dict[str, Any]]) -> str:
    """Return the file's text, one record a line."""
    return "[\n" + ",\n".join(f"  {json.dumps(record)}" for record in records) + "\n]\n"


def published_records(node: Node, folder: Path) -> list[dict[str, Any]]:
    """Return the list of the npm package, which is unpacked in `folder`."""
    options: list[str | Path] = ["pack", PACKAGE, "--pack-destination", folder]
    run_command("npm", [*node.npm, *options], folder, node.environment())
    (archive,) = folder.glob("*.tgz")
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    bundle = (folder / "package" / "lib" / "index.js").as_uri()
    command: list[str | Path] = [node.node, "--eval", _PRINT_RECORDS, bundle]
    printed = subprocess.run(command, check=True, capture_output=True, text=True)
    records: list[dict[str, Any]] = json.loads(printed.stdout)
    return records


def main() -> None:
    """Fetch WebLLM's list and write ours."""
    with tempfile.TemporaryDirectory() as folder:
        records = published_records(ensure_node(), Path(folder))
    MODEL_LIST.write_text(json_text([*OWN_RECORDS, *map(our_record, records)]), encoding="utf-8")
    print(f"{MODEL_LIST}: {len(OWN_RECORDS)} own records and {len(records)} of {PACKAGE}")


if __name__ == "__main__":
    main()
