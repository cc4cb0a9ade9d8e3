"""One database with runs of all kinds and one page for the tests of a module: they only look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import Cli
from database_server import DatabaseServer
from web_flows import Shown, fill
from web_harness import TOKEN, Served, serve

pytest.importorskip("starlette")


@pytest.fixture(scope="module")
def shown(server: DatabaseServer, template: str) -> Iterator[Shown]:
    """A database with runs that completed, failed, wait, are queued, with texts that attack."""
    with server.database(template) as dsn:
        yield fill(dsn)


@pytest.fixture(scope="module")
def page(shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page of it, read-only and without a token."""
    cli = Cli(tmp_path_factory.mktemp("serve"), shown.dsn)
    try:
        yield serve(cli)
    finally:
        cli.kill_all()


@pytest.fixture(scope="module")
def acting(shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same with actions, for somebody who has shown the token."""
    cli = Cli(tmp_path_factory.mktemp("serve"), shown.dsn)
    try:
        served = serve(cli, "--allow-actions", PGFLOW_WEB_TOKEN=TOKEN)
        served.enter()
        yield served
    finally:
        cli.kill_all()


@pytest.fixture
def cli(tmp_path: Path, dsn: str) -> Iterator[Cli]:
    """The command line with an empty database of its own."""
    found = Cli(tmp_path, dsn)
    yield found
    found.kill_all()
