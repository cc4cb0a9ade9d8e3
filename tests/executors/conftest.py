"""Engines are started once for all tests, and end with them."""

from __future__ import annotations

from collections.abc import Iterator

import engine_clusters
import pytest


@pytest.fixture(scope="session", autouse=True)
def _engines_end() -> Iterator[None]:
    yield
    engine_clusters.close_all()
