"""Read the corpus, hold rows out, format chats and pack everything into token rows."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from templates import Message, conversations, story_request

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REPOSITORY = Path(__file__).resolve().parents[3]
DEFAULT_CORPUS = REPOSITORY.parent / "shared" / "corpus"
HELD_OUT = 100
SPLIT_SEED = 20240
LONGEST_STORY = 4200
"""Characters; longer stories are left out (simple English is short)."""

REQUESTS = 6
"""Different requests that are invented for every TinyStories text."""

FULL, TEMPLATE, USER, SILENT = 10, 14, 2, 0
"""Loss weights in tenths: text and answers, answers of templates, what users say, the rest."""

Row = dict[str, Any]


@dataclass
class Split:
    """The rows for training and those kept out of it."""

    stories: list[Row]
    chats: list[Row]
    held_stories: list[Row]
    held_chats: list[Row]


def read_rows(path: Path) -> list[Row]:
    """Read gzipped JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def digest(text: str) -> str:
    """Return a key that ignores case, spaces and punctuation."""
    letters = re.sub(r"[^a-z0-9]+", "", text.lower())
    return hashlib.sha1(letters.encode(), usedforsecurity=False).hexdigest()


def keys_of(row: Row) -> set[str]:
    """Return the keys by which a row is recognised elsewhere in the corpus."""
    if "text" in row:
        return {digest(row["text"]), digest(row["text"][:160])}
    contents = [message["content"] for message in row["messages"]]
    keys = {digest("\n".join(contents))}
    for content in contents:
        if len(content) > 200:
            keys |= {digest(content), digest(content[:160])}
    return keys


def is_tiny_story(row: Row) -> bool:
    """Say whether a row comes from TinyStories."""
    return bool(row["license"].startswith("CDLA"))


def split(corpus: Path) -> Split:
    """Hold out 100 TinyStories rows and 100 chat rows, and every row with one of their texts."""
    stories = read_rows(corpus / "story.jsonl.gz")
    chats = read_rows(corpus / "chat.jsonl.gz")
    rng = random.Random(SPLIT_SEED)
    held_stories = rng.sample([row for row in stories if is_tiny_story(row)], HELD_OUT)
    held_chats = rng.sample(chats, HELD_OUT)
    held: set[str] = set()
    for row in held_stories + held_chats:
        held |= keys_of(row)
    return Split(
        [row for row in stories if not keys_of(row) & held],
        [row for row in chats if not keys_of(row) & held],
        held_stories,
        held_chats,
    )


def render(messages: list[Message]) -> list[tuple[str, bool]]:
    """Return the ChatML pieces of a chat; true marks what the assistant has to produce."""
    pieces: list[tuple[str, bool]] = []
    for message in messages:
        pieces.append((f"<|im_start|>{message['role']}\n", False))
        spoken = message["role"] == "assistant"
        pieces.append((f"{message['content']}<|im_end|>", spoken))
        pieces.append(("\n", False))
    return pieces


@dataclass
class Document:
    """Token ids and loss weights of one text."""

    tokens: np.ndarray
    weights: np.ndarray


@dataclass
class Encoder:
    """Turn texts and chats into documents; every document ends with ``<|endoftext|>``."""

    tokenizer: Tokenizer
    end: int = field(init=False)

    def __post_init__(self) -> None:
        self.end = self.tokenizer.token_to_id("<|endoftext|>")

    def stories(self, texts: list[str]) -> list[Document]:
        """Encode plain texts, all tokens weighing the same."""
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [
            Document(
                np.array([*item.ids, self.end], dtype=np.uint16),
                np.full(len(item.ids) + 1, FULL, dtype=np.uint8),
            )
            for item in encoded
        ]

    def chats(
        self, chats: list[list[Message]], answer: int = FULL, user: int = USER
    ) -> list[Document]:
        """Encode chats; answers weigh ``answer``, what users write ``user``."""
        pieces = [render(messages) for messages in chats]
        flat = [text for chat in pieces for text, _ in chat]
        encoded = iter(self.tokenizer.encode_batch(flat, add_special_tokens=False))
        documents = []
        for chat in pieces:
            tokens: list[int] = []
            weights: list[int] = []
            for place, (_, spoken) in enumerate(chat):
                ids = next(encoded).ids
                tokens += ids
                # Pieces come in threes: header, content, newline.
                weight = answer if spoken else user if place % 3 == 1 else SILENT
                weights += [weight] * len(ids)
            tokens.append(self.end)
            weights.append(SILENT)
            documents.append(
                Document(np.array(tokens, dtype=np.uint16), np.array(weights, dtype=np.uint8))
            )
        return documents


def clean_chats(rows: list[Row]) -> dict[str, list[Row]]:
    """Group the chats by set, without placeholders and overlong ones, ending in an answer."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        messages = list(row["messages"])
        while messages and messages[-1]["role"] != "assistant":
            messages.pop()
        text = "\n".join(message["content"] for message in messages)
        if len(messages) < 2 or re.search(r"\[[^\]]*\]", text):
            continue
        if row["set"] == "snakes_generated-child" and len(text) > 3200:
            continue
        groups.setdefault(row["set"], []).append({**row, "messages": messages})
    return groups


Pool = Callable[[], Document]


def cycle(documents: list[Document], rng: random.Random) -> Pool:
    """Return a source that gives every document once per shuffled pass."""
    order: list[int] = []

    def draw() -> Document:
        if not order:
            order.extend(range(len(documents)))
            rng.shuffle(order)
        return documents[order.pop()]

    return draw


MAIN_MIX = {
    "tiny": 0.12, "tiny-instruct": 0.26, "book": 0.04, "child": 0.08, "child-chat": 0.06,
    "slice": 0.03, "persona": 0.10, "trivia": 0.055, "tm4": 0.04, "jokes": 0.015, "templates": 0.20,
}  # fmt: skip
DECAY_MIX = {
    "tiny": 0.08, "tiny-instruct": 0.30, "book": 0.03, "child": 0.02, "child-chat": 0.05,
    "slice": 0.02, "persona": 0.08, "trivia": 0.05, "tm4": 0.03, "jokes": 0.015, "templates": 0.325,
}  # fmt: skip
"""Shares of the tokens."""


def story_pools(encoder: Encoder, rows: Split, rng: random.Random) -> dict[str, list[Document]]:
    """Encode all documents of the corpus by group (templates apart)."""
    groups = clean_chats(rows.chats)
    told = {
        digest(message["content"])
        for row in groups.get("snakes_generated-child", [])
        for message in row["messages"]
    }
    tiny = [row["text"] for row in rows.stories if is_tiny_story(row)]
    books, child = [], []
    for row in rows.stories:
        if is_tiny_story(row) or len(row["text"]) > LONGEST_STORY:
            continue
        if row["license"].startswith("CC-BY"):
            books.append(row["text"])
        elif digest(row["text"]) not in told:
            child.append(row["text"])
    requests: list[list[Message]] = [
        [
            {"role": "user", "content": story_request(rng, text)},
            {"role": "assistant", "content": text},
        ]
        for text in tiny
        for _ in range(REQUESTS)
    ]
    pools = {
        "tiny": encoder.stories(tiny),
        "book": encoder.stories(books),
        "child": encoder.stories(child),
        "tiny-instruct": encoder.chats(requests),
    }
    names = {
        "persona": "persona", "trivia": "trivia", "tm4": "tm4", "jokes": "jokes",
        "snakes_generated-child": "child-chat", "snakes_llama-slice-of-life": "slice",
        "tinystories-instruct": "tiny-instruct",
    }  # fmt: skip
    for group, pool in names.items():
        documents = encoder.chats([row["messages"] for row in groups[group]])
        pools[pool] = pools.get(pool, []) + documents
    return pools


def draw_documents(
    pools: dict[str, list[Document]], mix: dict[str, float], total: int, rng: random.Random
) -> Iterator[Document]:
    """Yield documents until ``total`` tokens, keeping the shares of the mix."""
    sources = {name: cycle(pools[name], rng) for name in mix}
    spent = dict.fromkeys(mix, 0.0)
    done = 0
    while done < total:
        # The group furthest behind its share comes next; noise keeps the order irregular.
        name = min(mix, key=lambda name: (spent[name] + rng.random() * 4000) / mix[name])
        document = sources[name]()
        spent[name] += len(document.tokens)
        done += len(document.tokens)
        yield document


def pack(
    documents: Iterator[Document], length: int, end: int, window: int = 48
) -> tuple[np.ndarray, np.ndarray]:
    """Fill rows of ``length`` tokens, starting each with a new document.

    From a small window of waiting documents the longest that fits is taken; when none fits, the
    longest is cut at the end of the row and its rest dropped (only texts much longer than a row
    lose much).
    """
    rows: list[np.ndarray] = []
    row_weights: list[np.ndarray] = []
    waiting: list[Document] = []
    exhausted = False
    while True:
        while not exhausted and len(waiting) < window:
            item = next(documents, None)
            if item is None:
                exhausted = True
            else:
                waiting.append(item)
        if len(waiting) < window // 2:
            break
        tokens = np.full(length, end, dtype=np.uint16)
        weights = np.zeros(length, dtype=np.uint8)
        first = waiting.pop(0)
        used = min(len(first.tokens), length)
        tokens[:used], weights[:used] = first.tokens[:used], first.weights[:used]
        while length - used >= 24 and waiting:
            room = length - used
            fitting = [i for i, item in enumerate(waiting) if len(item.tokens) <= room]
            if not fitting:
                break
            best = max(fitting, key=lambda i: len(waiting[i].tokens))
            item = waiting.pop(best)
            size = len(item.tokens)
            tokens[used : used + size], weights[used : used + size] = item.tokens, item.weights
            used += size
        rows.append(tokens)
        row_weights.append(weights)
    return np.stack(rows), np.stack(row_weights)


def build(corpus: Path, out: Path, main_tokens: int, decay_tokens: int, templates: int) -> None:
    """Train the tokenizer if there is none and write the two streams of rows."""
    from tokenizer import save_tokenizer, train_tokenizer
    from tokenizers import Tokenizer

    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(7)
    rows = split(corpus)
    samples = list(conversations(templates, seed=1))
    if not (out / "tokenizer.json").exists():
        tiny = [row["text"] for row in rows.stories if is_tiny_story(row)]
        texts = [row["text"] for row in rows.stories] + tiny * 3
        for row in rows.chats:
            copies = 2 if row["set"] in ("persona", "tm4", "jokes") else 1
            texts += [message["content"] for message in row["messages"]] * copies
        for messages in samples[:30000]:
            texts += [message["content"] for message in messages]
        save_tokenizer(train_tokenizer(texts), out)
    encoder = Encoder(Tokenizer.from_file(str(out / "tokenizer.json")))
    pools = story_pools(encoder, rows, rng)
    pools["templates"] = encoder.chats(samples, answer=TEMPLATE, user=1)
    sizes = {name: sum(len(d.tokens) for d in pool) for name, pool in pools.items()}
    print(json.dumps({"documents": {k: len(v) for k, v in pools.items()}, "tokens": sizes}))
    streams = (("main", MAIN_MIX, main_tokens, 513), ("decay", DECAY_MIX, decay_tokens, 1025))
    for name, mix, total, length in streams:
        drawn = draw_documents(pools, mix, total, rng)
        packed, weights = pack(drawn, length, encoder.end)
        order = np.random.default_rng(11).permutation(len(packed))
        np.save(out / f"{name}.npy", packed[order])
        np.save(out / f"{name}.weights.npy", weights[order])
        share = float((weights > 0).mean())
        print(
            f"{name}: {packed.shape[0]} rows of {length}, share with loss {share:.3f}", flush=True
        )


def main() -> None:
    """Build the training data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--main-tokens", type=int, default=42_000_000)
    parser.add_argument("--decay-tokens", type=int, default=16_000_000)
    parser.add_argument("--templates", type=int, default=130_000)
    args = parser.parse_args()
    build(args.corpus, args.out, args.main_tokens, args.decay_tokens, args.templates)


if __name__ == "__main__":
    main()
