"""Stored vectors of texts equal sentence-transformers' own pipeline, where it is installed.

`test_encoder.py` and `tests/browser/test_embeddings.py` compare the engine with the stored ones.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.encoder_fixtures import POOLINGS, TOKENIZER, load_encoder_fixture
from tests.conformance.encoder_recipe import TEXT_CASE, TEXTS

pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Hugging Face folder of the text case: model, tokenizer, configuration."""
    from tests.conformance.encoder_reference import encoder_model

    case = load_encoder_fixture(TEXT_CASE).case
    folder = tmp_path_factory.mktemp("checkpoint")
    encoder_model(case).save_pretrained(folder)
    shutil.copyfile(TOKENIZER, folder / "tokenizer.json")
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("normalize", [False, True])
def test_vectors_of_texts(checkpoint: Path, pooling: str, normalize: bool) -> None:
    from sentence_transformers import SentenceTransformer, models

    transformer = models.Transformer(str(checkpoint))
    modules = [
        transformer,
        models.Pooling(transformer.get_word_embedding_dimension(), pooling_mode=pooling),
    ]
    pipeline = SentenceTransformer(modules=[*modules, *[models.Normalize()] * normalize])
    found = pipeline.encode(list(TEXTS), batch_size=2, convert_to_numpy=True)
    expected = load_encoder_fixture(TEXT_CASE).vectors(pooling, normalize)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
