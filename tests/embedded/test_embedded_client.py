"""A client without a connection string uses the embedded server: it starts it, shares it and leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgflow_mp import Client, Flow
from pgflow_mp.client.keyed_runs import ensure_flow
from pgflow_mp.db.connection import DSN_VARIABLES, LIBPQ_VARIABLES
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.errors import ConfigError
from pgflow_mp.loading import reentry

flow = Flow("embedded_doubles")
flow.map("double", abs)


def _is_running(base: Path) -> bool:
    with EmbeddedServer(base) as server:
        return server.attached


def test_a_client_finds_or_starts_the_embedded_server(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*DSN_VARIABLES, *LIBPQ_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PGFLOW_DATA_DIR", str(base))
    first = Client()
    assert not _is_running(base), "nothing is started before it is needed"
    with first:
        first._call(lambda conn: ensure_flow(conn, flow, "check"))
        run = first.start_flow("embedded_doubles", [1, -2])
        with Client(data_dir=base) as second:  # attaches
            assert second.get_run(run.run_id) is not None
        assert run.refresh().status == "started"  # the server is still there
    assert not _is_running(base), "the last one out stops it"
    again = first.get_run(run.run_id)  # a closed client opens again
    assert again is not None
    assert again.input == [1, -2]
    first.close()


def test_in_a_handler_it_is_the_database_of_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not an embedded server of the process's own, where nobody else would look."""
    for name in (*DSN_VARIABLES, *LIBPQ_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    with reentry.executing(), pytest.raises(ConfigError, match="no database to connect to"):
        Client()
    monkeypatch.setattr(reentry, "_is_lane", True)
    monkeypatch.setattr(reentry, "_database", "host=example dbname=theirs")
    assert Client()._dsn() == "host=example dbname=theirs"
