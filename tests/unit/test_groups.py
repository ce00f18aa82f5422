"""The tests of a file share their fixtures, also when several processes run the suite."""

from __future__ import annotations

import os

import pytest


def test_pytest_xdist_knows_the_groups(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process runs all tests")
    assert request.node.nodeid.endswith("@test_groups.py")
