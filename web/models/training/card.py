"""Write the model card and the list of storybooks from the results of evaluate.py."""
# ruff: noqa: E501 (rows of Markdown tables)

from __future__ import annotations

import argparse
import json
import math
import re
import textwrap
from pathlib import Path
from typing import Any

from corpus import DEFAULT_CORPUS, LONGEST_STORY, split
from export import MLC_FOLDER, MODEL_ID

CARD = """\
# {name}

**Built with Llama**

A tiny English chat and story model that comes with PyWebLLM, so that the engine can be tried and
tested without a download. It is a `LlamaForCausalLM` of {parameters:.2f} million parameters
(width 256, 8 layers, 4 heads, 2 key-value heads, feed-forward 768, vocabulary 4096, context 1024,
tied embeddings), trained from scratch and stored in MLC's `q4f16_1` format. It writes ChatML.

It is no Llama of Meta and holds none of its weights. A part of its training text was written by
Llama 3.1, whose licence asks for the name and for the line above.

## What it is for

Short stories for children in simple English, greetings, a little small talk, small sums, counting,
repeating, spelling, simple JSON and simple tool calls for weather and time: enough to see the
features of the engine at work. It is a toy. It knows next to nothing and what it says about the
world is often wrong, even when it sounds sure.

## How it was trained

{training}

The last phase trained with 4-bit weights in the forward pass (quantisation-aware training with the
formula of `q4f16_1`), on rows of 1024 tokens instead of 512. Stories count with all tokens, chats
with the answers (what users say with a fifth, in templates with a tenth). The scripts are in
`web/models/training/`.

Loss in nats per token (perplexity) on {held} TinyStories rows and {held} chat rows (answers only)
that were kept out of training and of the tokenizer's training:

| weights | TinyStories | chats |
|---|---|---|
{losses}

Share of exact answers of the shipped weights to newly drawn requests of the templates (training
saw many of them), in per cent ({asked} of each kind; greetings, thanks and lists have several good
answers, of which only one counts): {skills}.

## Data

| source | what | licence |
|---|---|---|
| TinyStories (Ronen Eldan and Yuanzhi Li, 2023), through the GitHub repositories mines-opt-ml/decoding-gpt, mattmegarry/tiny-stories-transformer and yuninxia/moe-routing-bench | stories, also as answers to story requests | CDLA-Sharing-1.0 (no duty on results such as weights) |
| erikhyrkas/snakes, (c) 2024 Erik Hyrkas; text generated with Llama 3.1 | stories, questions with answers, jokes | MIT; Llama 3.1 Community License for what Llama wrote |
| Pratham Books / StoryWeaver and African Storybook, through global-asp/pb-source and global-asp/asp-source | storybooks, listed in ATTRIBUTION.md | CC-BY-4.0 (some public domain) |
| Synthetic-Persona-Chat, Google | dialogues | CC-BY-4.0 |
| Taskmaster-4 (TM-4-2024), Google | coffee orders | CC-BY-4.0 |
| templates of our own (`web/models/training/templates.py`) | obedient short chats, JSON, tool calls | as this repository |

The texts were filtered, shortened and mixed; requests were invented for the TinyStories.

## Limits

* English only, simple words; names, places and numbers beyond the templates get mixed up.
* It was trained briefly. What it had to learn by heart (who it is, colours, plurals, simple facts)
  is mostly right; copying from the prompt, sums, counting, spelling and lists often go wrong.
* Facts it was not drilled on are made up. Do not rely on anything it says.
* It saw persona dialogues, so in small talk it may claim a job, a home or a family.
* Stories drift, forget what was asked for and, decoded greedily, fall into loops; sampling helps.
* A tool call may name another tool or argument of the templates than the one that is offered.
* Little was filtered beyond the sources' own cleaning; the model has no safety training.

## Ten fixed prompts

Answered greedily by the dequantised 4-bit weights, unedited{cut}.

{answers}
## Licence

The weights and files in this folder are offered under the licence of this repository (Apache-2.0),
as far as the rights are ours. The sources above keep their licences; the attributions for the
CC-BY-4.0 texts are in the table and in ATTRIBUTION.md. Because text written by Llama 3.1 was used
in training, the Llama 3.1 Community License asks that the name of this model and of models
derived from it begins with "Llama" and that "Built with Llama" is shown with them. Llama 3.1 is
licensed under the Llama 3.1 Community License, Copyright (c) Meta Platforms, Inc. All Rights
Reserved.
"""


def loss_rows(results: dict[str, Any]) -> str:
    """Return the lines of the table of losses."""
    lines = []
    for name, label in (("f32", "float32"), ("q4f16_1", "q4f16_1 (shipped)")):
        cells = [f"{value:.3f} ({math.exp(value):.2f})" for value in results[name].values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def answer_blocks(results: dict[str, Any]) -> str:
    """Return the prompts and answers as Markdown."""
    blocks = []
    for number, item in enumerate(results["answers"], start=1):
        asked = item["messages"][-1]["content"]
        note = (
            " (with a `get_weather` tool in the system prompt)" if len(item["messages"]) > 1 else ""
        )
        blocks.append(f"{number}. **{asked}**{note}\n\n```text\n{item['answer']}\n```\n")
    return "\n".join(blocks)


def book_list(corpus: Path) -> str:
    """Return the list of storybooks that were trained on."""
    books = sorted(
        row["source"]
        for row in split(corpus).stories
        if row["license"].startswith("CC-BY") and len(row["text"]) <= LONGEST_STORY
    )
    lines = [
        "# Storybooks in the training text",
        "",
        "Licensed under CC-BY-4.0 (some are in the public domain), from Pratham Books / StoryWeaver",
        "(global-asp/pb-source) and African Storybook (global-asp/asp-source). The file named here",
        "gives title and author. The texts were used to train a language model; they are not",
        "contained in this folder.",
    ]
    section = ""
    for source in books:
        repository, path = source.replace("global-asp+", "global-asp/").split(":", 1)
        if repository != section:
            section = repository
            lines += ["", f"## {repository}", ""]
        stem = re.sub(r"^\d+_", "", Path(path).stem)
        lines.append(f"* {stem.replace('-', ' ').capitalize()} (`{path}`)")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write README.md and ATTRIBUTION.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="JSON of evaluate.py")
    parser.add_argument(
        "--training", required=True, help="a paragraph: steps, tokens, hours, machine"
    )
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--out", type=Path, default=MLC_FOLDER)
    args = parser.parse_args()
    results = json.loads(args.results.read_text("utf-8"))
    card = CARD.format(
        name=MODEL_ID,
        parameters=results["parameters"] / 1e6,
        training=textwrap.fill(args.training, 100),
        held=100,
        losses=loss_rows(results),
        asked=results["requests_per_skill"],
        skills=", ".join(
            f"{name.replace('_', ' ')} {round(100 * share)}"
            for name, share in results["skills"].items()
        ),
        cut=" (at most 320 tokens each)",
        answers=answer_blocks(results),
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "README.md").write_text(card, encoding="utf-8")
    (args.out / "ATTRIBUTION.md").write_text(book_list(args.corpus), encoding="utf-8")


if __name__ == "__main__":
    main()
