"""A durable PostgreSQL server for the benchmarks, and databases on it. Run: pytest benchmarks -m benchmark"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pgflow_mp.bench import burning as work
from pgflow_mp.bench.stage import Stage, open_server


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """The server of this session, with our two lanes."""
    with open_server(None, print) as dsn:
        yield Stage(dsn, 2, True, work.loops_per_second(), print)


@pytest.fixture
def dsn(stage: Stage) -> Iterator[str]:
    """A fresh database with our schema."""
    with stage.database() as dsn:
        yield dsn
