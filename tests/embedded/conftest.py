"""A data directory that is already initialised: copying one is quicker than initdb."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgflow_mp.embedded.server import EmbeddedServer


def _quick_dir() -> str | None:
    """A directory in memory, where there is one with room: fsync costs nothing there."""
    memory = "/dev/shm"
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2_000_000_000:
        return memory
    return None


@pytest.fixture(scope="session")
def _initialised() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pgflow-test-", dir=_quick_dir()) as directory:
        with EmbeddedServer(directory) as server, psycopg.connect(server.dsn) as conn:
            conn.execute("create table public.kept as select 42 as answer")
        yield Path(directory)


@pytest.fixture
def base(_initialised: Path) -> Iterator[Path]:
    """A base directory with a stopped server whose table ``kept`` holds the number 42."""
    with tempfile.TemporaryDirectory(prefix="pgflow-test-", dir=_quick_dir()) as directory:
        copy = Path(directory) / "base"
        shutil.copytree(_initialised, copy, symlinks=True)
        (home,) = copy.iterdir()
        (home / "server.json").unlink()
        yield copy
