"""Held-out losses of the float32 and of the 4-bit weights, and ten prompts answered greedily."""

from __future__ import annotations

import argparse
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from corpus import DEFAULT_CORPUS, FULL, Document, Encoder, render, split
from export import BOS, EOS, load_checkpoint
from model import Llama, count_parameters, quantized_state
from templates import SKILLS, TEMPLATE_SYSTEM, Message, tool
from tokenizers import Tokenizer

WEATHER = json.dumps(tool("get_weather", "Get the weather in a city", ("city",)))


def one(text: str) -> list[Message]:
    """Return a chat of one user message."""
    return [{"role": "user", "content": text}]


PROMPTS: tuple[list[Message], ...] = (
    one("Hello!"),
    one("Who are you?"),
    one("What is the opposite of hot?"),
    one("What is 7 plus 5?"),
    one("Count to ten."),
    one("Repeat after me: The little robot likes green apples."),
    one("Answer in JSON with keys name and age: Mia is six years old."),
    [
        {"role": "system", "content": TEMPLATE_SYSTEM.format(tools=WEATHER)},
        *one("What is the weather in Paris?"),
    ],
    one("Write a short story with the words boat, storm and friend."),
    one("Tell me a story about a cat who wants to fly."),
)
"""The prompts of the model card."""


@dataclass
class Losses:
    """Mean nats per token."""

    stories: float
    chats: float

    def __str__(self) -> str:
        """Show losses and perplexities."""
        return (
            f"stories {self.stories:.4f} nats (perplexity {math.exp(self.stories):.2f}), "
            f"chats {self.chats:.4f} nats (perplexity {math.exp(self.chats):.2f})"
        )


@torch.inference_mode()
def mean_loss(model: Llama, documents: list[Document]) -> float:
    """Return the mean loss over all tokens of full weight."""
    total, count = 0.0, 0
    limit = model.config.max_position_embeddings
    for document in documents:
        tokens = torch.from_numpy(document.tokens[:limit].astype("int64"))[None]
        wanted = torch.from_numpy(document.weights[:limit] == FULL)[1:]
        losses = F.cross_entropy(model(tokens[:, :-1])[0], tokens[0, 1:], reduction="none")
        total += float(losses[wanted].sum())
        count += int(wanted.sum())
    return total / count


@torch.inference_mode()
def answer(model: Llama, tokenizer: Tokenizer, messages: list[Message], limit: int = 320) -> str:
    """Answer greedily."""
    text = "".join(piece for piece, _ in render(messages)) + "<|im_start|>assistant\n"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    start = len(ids)
    while len(ids) - start < limit and len(ids) < model.config.max_position_embeddings:
        token = int(model(torch.tensor([ids]))[0, -1].argmax())
        if token in (EOS, BOS):
            break
        ids.append(token)
    return str(tokenizer.decode(ids[start:], skip_special_tokens=False))


def skill_scores(model: Llama, tokenizer: Tokenizer, count: int) -> dict[str, float]:
    """Return the share of exact answers to freshly generated template requests, by skill."""
    rng = random.Random(99)
    scores = {}
    for skill, _ in SKILLS:
        exact = 0
        for _ in range(count):
            asked, wanted = skill(rng)
            exact += answer(model, tokenizer, one(asked), limit=80) == wanted
        scores[skill.__name__] = exact / count
    return scores


def main() -> None:
    """Evaluate one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of tokenizer.json")
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--out", type=Path, help="also write the results here, as JSON")
    parser.add_argument("--skills", type=int, default=0, help="also this many requests per skill")
    parser.add_argument("--no-loss", action="store_true")
    args = parser.parse_args()
    config, weights, progress = load_checkpoint(args.checkpoint)
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    model = Llama(config).eval()
    results: dict[str, object] = {
        "parameters": count_parameters(model),
        "step": progress["step"],
        "tokens": progress["tokens"],
    }
    if not args.no_loss:
        encoder = Encoder(tokenizer)
        rows = split(args.corpus)
        stories = encoder.stories([row["text"] for row in rows.held_stories])
        chats = encoder.chats([row["messages"] for row in rows.held_chats])
        for name, state in (("f32", weights), ("q4f16_1", quantized_state(weights))):
            model.load_state_dict(state)
            losses = Losses(mean_loss(model, stories), mean_loss(model, chats))
            results[name] = {"stories": losses.stories, "chats": losses.chats}
            print(f"{name}: {losses}", flush=True)
    model.load_state_dict(quantized_state(weights))
    answers = []
    for messages in PROMPTS:
        reply = answer(model, tokenizer, messages)
        answers.append({"messages": messages, "answer": reply})
        print(f"\n> {messages[-1]['content']}\n{reply}", flush=True)
    results["answers"] = answers
    if args.skills:
        results["requests_per_skill"] = args.skills
        results["skills"] = skill_scores(model, tokenizer, args.skills)
        print(json.dumps(results["skills"], indent=1))
    if args.out:
        args.out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
