"""Installers take turns, and nobody else can keep them from it."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from database_roles import role_with

from pgflow_mp.db import online, schema

KEYS = (schema._LOCK_KEY, online._LOCK_KEY)


def install(dsn: str, found: list[str]) -> threading.Thread:
    def run() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            found.append("changed" if schema.install(conn).changed else "unchanged")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("shared", ["", "_shared"])
def test_a_role_that_only_may_log_in_keeps_nobody_from_installing(
    empty_dsn: str, shared: str, caplog: pytest.LogCaptureFixture
) -> None:
    with role_with(empty_dsn, None) as theirs, psycopg.connect(theirs, autocommit=True) as hostile:
        for key in KEYS:
            hostile.execute(f"select pg_advisory_lock{shared}({key})")
        for _ in ("a first installation", "an upgrade"):
            found: list[str] = []
            install(empty_dsn, found).join(30)
            assert found == ["changed"]
            assert f"{hostile.info.user} (pid {hostile.info.backend_pid})" in caplog.text
            with psycopg.connect(empty_dsn, autocommit=True) as conn:
                conn.execute("update pgflow.schema_version set functions_digest = 'older'")
            caplog.clear()


def test_an_installer_is_waited_for(empty_dsn: str) -> None:
    found: list[str] = []
    with psycopg.connect(empty_dsn) as other:
        other.execute("select 1")  # what follows is part of this transaction
        schema.install(other)
        waiting = [install(empty_dsn, found) for _ in range(3)]
        time.sleep(0.5)
        assert found == []
        other.commit()
    for thread in waiting:
        thread.join(30)
    assert found == ["unchanged"] * 3
