"""Make the embedded encoder: vectors of words from the company they keep, in the shape of BERT.

A word's vector comes from a factorised table of which words stand near it in the stories, so words
of one topic point the same way; a text's vector is the mean of its words', in which frequent words
weigh little. That is no network, but any BERT that passes its embeddings through is one of its
shape: the layer's weights are zero, and with a huge epsilon a LayerNorm only scales.

    python word_vectors.py --work FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import chain
from pathlib import Path

import numpy as np
from corpus import DEFAULT_CORPUS, SPLIT_SEED, is_tiny_story, read_rows
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY))
from py_engine.weights.convert import convert_model  # noqa: E402  found by the path above
from py_engine.weights.quantization import stored_value  # noqa: E402  found by the path above

MODEL_ID = "Story-Words-1M-q4f16_1-MLC"
QUANTIZATION = "q4f16_1"
VOCABULARY, HIDDEN, POSITIONS = 6144, 128, 256
WINDOW = 10
"""Words further apart than this do not count as neighbours; nearer ones count more."""

RARE = 1e-3
"""Share of the text at which a word weighs half."""

HELD_OUT = 200
EPSILON = 1e6
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def split_stories(corpus: Path) -> tuple[list[str], list[str]]:
    """Return the texts to learn from, and TinyStories kept out: no text of a language model."""
    rows = [row for row in read_rows(corpus / "story.jsonl.gz") if "Llama" not in row["license"]]
    tiny = [index for index, row in enumerate(rows) if is_tiny_story(row)]
    held = set(np.random.default_rng(SPLIT_SEED).choice(tiny, HELD_OUT, replace=False).tolist())
    texts = [row["text"] for row in rows]
    return (
        [text for index, text in enumerate(texts) if index not in held],
        [texts[index] for index in sorted(held)],
    )


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Return a WordPiece tokenizer of lower-case words, as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=[*SPECIAL])
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return tokenizer


def count_neighbours(sequences: list[list[int]]) -> np.ndarray:
    """Return how often words stand near each other, f32 (vocabulary, vocabulary)."""
    gap = [-1] * WINDOW  # between texts
    ids = np.array(list(chain.from_iterable([*sequence, *gap] for sequence in sequences)))
    counts = np.zeros(VOCABULARY * VOCABULARY, np.float32)
    for distance in range(1, WINDOW + 1):
        left, right = ids[:-distance], ids[distance:]
        both = (left >= 0) & (right >= 0)
        pairs = left[both] * VOCABULARY + right[both]
        counts += np.bincount(pairs, minlength=len(counts)).astype(np.float32) / distance
    table = counts.reshape(VOCABULARY, VOCABULARY)
    return table + table.T


def factorised(counts: np.ndarray) -> np.ndarray:
    """Return vectors of length 1 whose products follow the positive pointwise mutual information.

    f32 (vocabulary, HIDDEN). The singular vectors come from five rounds of subspace iteration.
    """
    totals = counts.sum(axis=1)
    smoothed = totals**0.75 / (totals**0.75).sum()
    expected = totals[:, None] * smoothed + 1e-9
    information = np.log(np.maximum(counts / expected, 1), dtype=np.float32)
    basis = np.random.default_rng(SPLIT_SEED).standard_normal((VOCABULARY, HIDDEN + 20))
    basis = basis.astype(np.float32)
    for _ in range(5):
        basis = np.linalg.qr(information.T @ np.linalg.qr(information @ basis)[0])[0]
    left, values, _ = np.linalg.svd(information @ basis, full_matrices=False)
    vectors = left[:, :HIDDEN] * np.sqrt(values[:HIDDEN])
    vectors -= vectors.mean(axis=1, keepdims=True)  # which a LayerNorm would take away
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9)


def word_vectors(tokenizer: Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the words' weighted vectors, and the mean of all texts, which tells nothing."""
    sequences = [item.ids for item in tokenizer.encode_batch(texts, add_special_tokens=False)]
    shares = np.bincount(np.concatenate(sequences), minlength=VOCABULARY).astype(np.float32)
    shares /= shares.sum()
    vectors = factorised(count_neighbours(sequences)) * (RARE / (RARE + shares))[:, None]
    mean = np.mean([vectors[ids].mean(axis=0) for ids in sequences], axis=0)
    for name in SPECIAL:
        vectors[tokenizer.token_to_id(name)] = mean
    return vectors.astype(np.float32), mean.astype(np.float32)


def recall(tokenizer: Tokenizer, vectors: np.ndarray, mean: np.ndarray, texts: list[str]) -> float:
    """Return the share of texts whose first half finds its second half among all of them."""

    def embed(parts: list[str]) -> np.ndarray:
        encoded = tokenizer.encode_batch(parts)
        means = np.stack([vectors[item.ids].mean(axis=0) for item in encoded]) - mean
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    first = embed([text[: len(text) // 2] for text in texts])
    second = embed([text[len(text) // 2 :] for text in texts])
    return float(np.mean(np.argmax(first @ second.T, axis=1) == np.arange(len(texts))))


def hf_weights(vectors: np.ndarray, mean: np.ndarray) -> dict[str, np.ndarray]:
    """Return the weights of a BertModel of one layer that adds nothing to its embeddings."""
    layer = ("attention.self.query", "attention.self.key", "attention.self.value")
    layer += ("attention.output.dense", "intermediate.dense", "output.dense")
    weights = {
        "embeddings.word_embeddings.weight": vectors,
        "embeddings.position_embeddings.weight": np.zeros((POSITIONS, HIDDEN), np.float32),
        "embeddings.token_type_embeddings.weight": np.zeros((2, HIDDEN), np.float32),
    }
    for name in layer:
        weights[f"encoder.layer.0.{name}.weight"] = np.zeros((HIDDEN, HIDDEN), np.float32)
        weights[f"encoder.layer.0.{name}.bias"] = np.zeros(HIDDEN, np.float32)
    for name in ("embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"):
        weights[f"{name}.LayerNorm.weight"] = np.full(HIDDEN, np.sqrt(EPSILON), np.float32)
        weights[f"{name}.LayerNorm.bias"] = np.zeros(HIDDEN, np.float32)
    weights["encoder.layer.0.output.LayerNorm.bias"] = -mean
    return weights


def write_hf_folder(
    folder: Path, tokenizer: Tokenizer, vectors: np.ndarray, mean: np.ndarray
) -> None:
    """Write what transformers and sentence-transformers have of a BERT with mean pooling."""
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "layer_norm_eps": EPSILON,
        "max_position_embeddings": POSITIONS,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": VOCABULARY,
    }
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"idx": index, "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    for name, data in (
        ("config.json", config),
        ("1_Pooling/config.json", pooling),
        ("modules.json", modules),
    ):
        (folder / name).write_text(json.dumps(data, indent=2))
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(hf_weights(vectors, mean), str(folder / "model.safetensors"))


def main() -> None:
    """Train, measure, and write the folder of the repository."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--work", type=Path, required=True, help="folder for the float weights")
    parser.add_argument("--target", type=Path, default=REPOSITORY / "web" / "models" / MODEL_ID)
    options = parser.parse_args()
    texts, held = split_stories(options.corpus)
    tokenizer = train_tokenizer(texts)
    vectors, mean = word_vectors(tokenizer, texts)
    write_hf_folder(options.work, tokenizer, vectors, mean)
    convert_model(options.work, options.target, QUANTIZATION)
    rounded = stored_value(vectors, QUANTIZATION)
    for name, weights in (("float32", vectors), (QUANTIZATION, rounded)):
        print(f"{name}: recall {recall(tokenizer, weights, mean, held):.3f} of {len(held)}")


if __name__ == "__main__":
    main()
