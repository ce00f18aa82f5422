"""Cache control

What the browser keeps of models, where, and how to delete it.

Section: Models
WebLLM: cache-usage
Docs: sources-and-storage.md
"""

from py_engine import (
    create_web_worker_mlc_engine,
    delete_model_all_info_in_cache,
    has_model_in_cache,
    list_models_in_cache,
)

MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"
STORAGE = {"cacheBackend": "indexeddb"}  # or "opfs", the default, "cache", "cross-origin"

engine = await create_web_worker_mlc_engine(model_id=MODEL, engine_config={"app_config": STORAGE})
for model in await list_models_in_cache(STORAGE, engine=engine):
    print(f"{model.stored_bytes / 1e6:.1f} MB of {', '.join(model.model_ids) or model.url}")

print("Stored:", await has_model_in_cache(MODEL, STORAGE, engine=engine))
await delete_model_all_info_in_cache(MODEL, STORAGE, engine=engine)
print("Stored after deleting it:", await has_model_in_cache(MODEL, STORAGE, engine=engine))
