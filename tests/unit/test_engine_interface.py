"""The engine and its proxies have one interface, so that one can take the place of another."""

from __future__ import annotations

import inspect

import pytest

from py_engine.engine import MLCEngine
from py_engine.rpc.client import WebWorkerMLCEngine
from py_engine.rpc.extension_client import ExtensionServiceWorkerMLCEngine
from py_engine.rpc.service_worker_client import ServiceWorkerMLCEngine

PROXIES = (WebWorkerMLCEngine, ServiceWorkerMLCEngine, ExtensionServiceWorkerMLCEngine)
# What there is to say on one side only: processors are Python objects, workers can be ended.
ENGINES_OWN = {"set_logit_processor_registry"}
PROXYS_OWN = {"custom_request", "terminate"}


def methods(engine: type) -> dict[str, list[tuple[str, object, object]]]:
    """Return the public methods with the names, kinds and defaults of their parameters."""
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(value).parameters.values()]
        for name, value in inspect.getmembers(engine, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize("proxy", PROXIES)
def test_methods_are_the_same_and_take_the_same(proxy: type) -> None:
    ours, theirs = methods(MLCEngine), methods(proxy)
    assert ours.keys() - theirs.keys() == ENGINES_OWN
    assert theirs.keys() - ours.keys() == PROXYS_OWN
    for name in ours.keys() & theirs.keys():
        assert ours[name] == theirs[name], name
