"""A data directory that is already initialised: copying one is quicker than initdb."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest

from pgflow_mp.db.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def _initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("initialised")
    with EmbeddedServer(base) as server, psycopg.connect(server.dsn) as conn:
        conn.execute("create table kept as select 42 as answer")
    return base


@pytest.fixture
def base(_initialised: Path, tmp_path: Path) -> Path:
    """A base directory with a stopped server whose table ``kept`` holds the number 42."""
    shutil.copytree(_initialised, tmp_path / "base", symlinks=True)
    (home,) = (tmp_path / "base").iterdir()
    (home / "server.json").unlink()
    return tmp_path / "base"
