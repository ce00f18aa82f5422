"""The engines of tests/browser/test_engines.py: how each is made on a page. Imports are local,
since no page has the modules of all.
"""

WORKER = "./worker/web_worker.mjs"


async def direct():
    from py_engine import MLCEngine

    return MLCEngine()


async def web_worker():
    from py_engine import WebWorkerMLCEngine
    from py_engine.rpc.transport_browser import create_worker

    return WebWorkerMLCEngine(create_worker(WORKER))


async def webllm_client():
    import webllm_engine

    return webllm_engine.web_worker(WORKER)


async def service_worker():
    from py_engine import ServiceWorkerMLCEngine, register_service_worker

    return ServiceWorkerMLCEngine(await register_service_worker("./service_worker.mjs"))


async def extension():
    from py_engine import ExtensionServiceWorkerMLCEngine

    return ExtensionServiceWorkerMLCEngine()
