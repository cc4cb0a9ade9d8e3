"""The command line on a database of its own, or on none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import Cli


@pytest.fixture
def cli(tmp_path: Path, dsn: str) -> Iterator[Cli]:
    """The command line with ``--dsn`` of a fresh database that has the schema."""
    found = Cli(tmp_path, dsn)
    yield found
    found.kill_all()


@pytest.fixture
def bare_cli(tmp_path: Path) -> Iterator[Cli]:
    """The command line without any database named; its user data directory is empty."""
    found = Cli(tmp_path)
    yield found
    found.kill_all()
