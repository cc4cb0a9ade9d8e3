"""The embedded PostgreSQL as its callers see it."""

from __future__ import annotations

import psycopg

from pgflow_mp.db.embedded import EmbeddedServer


def test_a_throwaway_server_answers_and_leaves_nothing() -> None:
    with EmbeddedServer(throwaway=True) as server:
        with psycopg.connect(server.dsn) as conn:
            assert conn.execute("select current_database()").fetchone() == ("pgflow",)
        home = server.data_dir
    assert not home.exists()
