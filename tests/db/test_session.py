"""Sessions are alike, whatever a database, a role, the environment or a pooler have set."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
from database_server import DatabaseServer
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pgflow_mp.db import connection, engine, schema, session, wire
from pgflow_mp.db.reads import runs

ODD = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "xmloption": "document",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "search_path": "elsewhere, public, pg_catalog",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "client_encoding": "latin1",
    "statement_timeout": "200ms",
    "lock_timeout": "100ms",
    "idle_in_transaction_session_timeout": "100ms",
    "idle_session_timeout": "100ms",
}


def make_odd(conn: psycopg.Connection[tuple[object, ...]], kind: str, name: str) -> None:
    """Set everything odd for a database, or a role, from its next session on."""
    for setting, value in ODD.items():
        conn.execute(
            sql.SQL("alter {} {} set {} = {}").format(
                sql.SQL(kind),
                sql.Identifier(name),
                sql.Identifier(setting),
                # a list of names must not become one name
                sql.SQL(value) if setting == "search_path" else sql.Literal(value),
            )
        )


def test_what_a_database_or_its_role_has_set_does_not_reach_us(server: DatabaseServer, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        make_odd(admin, "database", str(conninfo_to_dict(dsn)["dbname"]))
    with connection.connect(dsn) as conn:
        wire.adapt(conn)
        for name, value in session.SESSION.items():
            (found,) = conn.execute("select current_setting(%s, true)", (name,)).fetchone() or (None,)
            assert found == value or (name == "transaction_timeout" and found is None)
        assert conn.info.encoding == "utf-8"
        schema.install(conn)
        conn.execute("select pgflow.create_flow('odd'), pgflow.add_step('odd', 'a')")
        run = engine.start_flow(conn, "odd", b'{"text": "\xe2\x82\xac"}')
        assert [row.status for row in engine.run_progress(conn, run)] == ["started"]


def test_times_are_read_right_where_no_setting_sticks(
    conn: psycopg.Connection[tuple[object, ...]],
) -> None:
    """A pooler may hand the next transaction to a server process on which our settings are unknown."""
    wire.adapt(conn)
    conn.execute("select pgflow.create_flow('odd'), pgflow.add_step('odd', 'a')")
    run = engine.start_flow(conn, "odd", b"{}")
    conn.execute("select set_config('DateStyle', 'SQL, DMY', false), set_config('TimeZone', 'EST', false)")
    view = runs.run_view(conn, run)
    assert view is not None
    began = view[1][0].started_at
    assert began is not None
    found = [engine.run_progress(conn, run)[0].started_at, runs.recent_runs(conn, 5)[0].started_at, began]
    row = engine.get_run(conn, run)
    assert row is not None
    for moment in [row.started_at, *found]:
        assert moment is not None
        assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
