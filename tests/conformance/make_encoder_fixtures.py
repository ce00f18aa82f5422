"""Writes `fixtures/bert_*`: python -m tests.conformance.make_encoder_fixtures (transformers)."""

from __future__ import annotations

from tests.conformance.encoder_fixtures import TOKENIZER, store_encoder_fixture
from tests.conformance.encoder_recipe import ENCODER_CASES, TEXT_CASE, encoder_case
from tests.conformance.encoder_reference import run_encoder
from tests.support.wordpiece import train_wordpiece


def main() -> None:
    """Train the tokenizer, then write one file per case."""
    vocab_size = encoder_case(TEXT_CASE).config["vocab_size"]
    TOKENIZER.write_text(train_wordpiece(vocab_size) + "\n", encoding="utf-8")
    for case in ENCODER_CASES:
        fixture = run_encoder(case)
        store_encoder_fixture(fixture)
        spread = fixture.hidden_states.std()
        print(f"{case.name}: {len(fixture.sequences)} sequences, spread {spread:.2f}")


if __name__ == "__main__":
    main()
