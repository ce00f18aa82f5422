"""Integrity

Files are compared with hashes that you give, and refused when they are others.

Section: Models
WebLLM: integrity-verification
Docs: sources-and-storage.md
"""

from py_engine import WebWorkerMLCEngine
from py_engine.errors import IntegrityError

CONFIG = "sha256-FqQplEc3twxpI63m4R8S4dKRBLa/Po8zwl2LXm28CjY="
TOKENIZER = "sha256-iEq0iIgD69G46j4Gqs1yqCaKgczdbETwAFuqcAk004w="


def record(model_id, config_hash):
    return {
        "model": "models/Llama-Storyteller-7M-q4f16_1-MLC/",
        "model_id": model_id,
        "integrity": {
            "config": config_hash,
            "tokenizer": {"tokenizer.json": TOKENIZER},
            "onFailure": "error",
        },
    }


records = [record("right", CONFIG), record("wrong", TOKENIZER)]
engine = WebWorkerMLCEngine(None, {"app_config": {"model_list": records}})

await engine.reload("right")
print("The files are those that were meant.")
try:
    await engine.reload("wrong")
except IntegrityError as error:
    print(f"Refused: {error}")
