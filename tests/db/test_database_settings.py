"""Settings of a database or a role that change how SQL is read: installing and running go on as ever."""

from __future__ import annotations

import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from pgflow_mp.db import schema

from .catalog import catalog

Connection = psycopg.Connection[Any]

UNUSUAL = {
    "standard_conforming_strings": "off",
    "escape_string_warning": "on",
    "backslash_quote": "off",
    "quote_all_identifiers": "on",
    "check_function_bodies": "off",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kolkata",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "xmloption": "document",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "default_toast_compression": "pglz",
    "plpgsql.extra_errors": "all",
    "plpgsql.extra_warnings": "all",
    "plpgsql.variable_conflict": "use_column",
    "row_security": "off",
    "search_path": "mine, public, pg_catalog",
    "statement_timeout": "10s",
}
"""All at once; each of them was tried alone when the test was written."""


@pytest.fixture
def unusual_dsn(empty_dsn: str) -> str:
    with psycopg.connect(empty_dsn, autocommit=True) as admin:
        admin.execute("create schema mine")
        admin.execute("create domain mine.text as pg_catalog.text check (value = 'never')")
        admin.execute(
            "create function mine.coalesce_all(text) returns text language sql as $$ select 'evil' $$;"
            "create function mine.lower(text) returns text language sql as $$ select 'evil' $$"
        )
        for name, value in UNUSUAL.items():
            admin.execute(
                sql.SQL("alter database {} set {} = {}").format(
                    sql.Identifier(admin.info.dbname),
                    sql.SQL(name),
                    sql.SQL("mine, public, pg_catalog") if name == "search_path" else sql.Literal(value),
                )
            )
    return empty_dsn


def work_a_run(conn: Connection) -> None:
    """A flow from its creation to its pruning, with whatever settings the session has."""
    one = "11111111-1111-1111-1111-111111111111"
    conn.execute("select pgflow.create_flow('F_1', base_delay => 0, timeout => 5)")
    conn.execute("select pgflow.add_step('F_1', 'm', step_type => 'map')")
    conn.execute("select pgflow.add_step('F_1', 's', '{m}')")
    run = conn.execute("select pgflow.start_run('F_1', %s)", (Jsonb([1, "a\\b'c"]),)).fetchone()
    assert run is not None
    conn.execute("select pgflow.register_worker(%s, 'F_1', 'w', '10 seconds')", (one,))
    first = conn.execute("select task_index, msg_id from pgflow.claim_tasks('F_1', %s, 5)", (one,)).fetchall()
    assert [row[0] for row in first] == [0, 1]
    conn.execute("select pgflow.extend_tasks('F_1', %s, %s, 9)", (one, [row[1] for row in first]))
    conn.execute("select pgflow.fail_tasks(%s, 'm', array[0], array['e'], %s, array[1])", (run[0], one))
    conn.execute("select pgflow.release_tasks('F_1', %s, %s)", (one, [first[1][1]]))
    again = conn.execute(
        "select task_index, attempt, input #>> '{}' from pgflow.claim_tasks('F_1', %s, 5)", (one,)
    )
    assert again.fetchall() == [(0, 2, "1"), (1, 1, "a\\b'c")]
    conn.execute(
        "select pgflow.complete_tasks(%s, 'm', array[0, 1], array['1', '2']::pg_catalog.jsonb[], %s, "
        "array[2, 1])",
        (run[0], one),
    )
    conn.execute("select pgflow.requeue_stalled_tasks(), pgflow.fail_stalled_tasks()")
    conn.execute("select pgflow.recover_dead_workers()")
    assert conn.execute("select step_slug from pgflow.claim_tasks('F_1', %s, 5)", (one,)).fetchall() == [
        ("s",)
    ]
    conn.execute("select pgflow.complete_task(%s, 's', 0, '{\"t\": 3}')", (run[0],))
    done = conn.execute("select status, output from pgflow.runs").fetchall()
    assert done == [("completed", {"s": {"t": 3}})]
    conn.execute("select pgflow.prune_data_older_than('-1 second')")
    assert conn.execute("select count(*) from pgflow.runs").fetchone() == (0,)
    conn.execute("select pgflow.delete_flow_and_data('F_1')")


@pytest.mark.parametrize("by_script", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_database_with_unusual_settings_gets_the_same_schema_and_works(
    unusual_dsn: str, conn: Connection, by_script: bool
) -> None:
    if by_script:
        done = subprocess.run(
            ["psql", "-X", "-q", "-f", "-", unusual_dsn],
            input=schema.sql_text(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with psycopg.connect(unusual_dsn, autocommit=True) as other:
        if not by_script:
            schema.install(other)
        schema.check(other)
        assert schema.install(other).changed is False
        work_a_run(other)
        other.execute(
            "set search_path = pg_catalog; set quote_all_identifiers = off; set intervalstyle = postgres"
        )
        conn.execute("set search_path = pg_catalog")
        assert catalog(other) == catalog(conn)


def test_an_installation_leaves_the_session_s_settings_as_they_were(unusual_dsn: str) -> None:
    query = "select name, setting from pg_catalog.pg_settings where name = any (%s) order by name"
    with psycopg.connect(unusual_dsn, autocommit=True) as other:
        other.execute("load 'plpgsql'")
        before = other.execute(query, (list(UNUSUAL),)).fetchall()
        schema.install(other)
        assert len(before) == len(UNUSUAL) - 3  # these three the view leaves out, or names otherwise
        assert other.execute(query, (list(UNUSUAL),)).fetchall() == before


def test_the_sql_that_is_installed_is_ascii() -> None:
    """So that it means the same in whatever encoding a server or psql takes it for."""
    files = [*schema.function_files(), *(file for files in schema.migrations().values() for file in files)]
    files.append(Path(str(resources.files("pgmq") / "sql" / "pgmq.sql")))
    assert [file.name for file in files if not file.read_bytes().isascii()] == []
