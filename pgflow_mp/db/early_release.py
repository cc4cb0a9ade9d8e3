"""Commits that release their locks before they are on the disk, and are waited for all the same.

A transaction keeps its row locks until its commit is on the disk, and on a synchronous standby. Workers that
share a map lock the same rows, one for claims and one for records: they get their turn one such wait apart,
however many they are. Here the transaction does not wait, and another one right behind it does, which locks
nothing, so that many wait together. The log is written in order: once the second one is on the disk the first
one is, and whatever others made of it lies behind it. Nobody is told of anything before it is durable.

It costs another transaction, so it is for those that share a map.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from pgflow_mp.db.patience import PatientConnection

DEFER: Final = "set_config('synchronous_commit', 'off', true)"
"""What a statement evaluates whose transaction is not to wait; wait_for_commits() is to follow."""
_WAIT: Final = "select pg_logical_emit_message(true, 'pgflow', '')"
_CAN: Final = (
    "select current_setting('synchronous_commit') <> 'off' and current_setting('wal_level') <> 'logical' "
    "and bool_and(has_function_privilege(p.oid, 'execute')) "
    "from pg_catalog.pg_proc p "
    "where p.proname = 'pg_logical_emit_message' and p.pronamespace = 'pg_catalog'::regnamespace"
)


def can_release_early(conn: psycopg.Connection[Any]) -> bool:
    """Whether that is possible, and of use, on this connection; it is asked once.

    Not where commits do not wait anyhow, where the role may not write a message into the log, or where
    somebody may be reading the messages there. Nor through a pooler, which may lead to the server that is
    back after a crash, or to a standby in its place, and tells nothing of it: that wait would say nothing.
    """
    if not isinstance(conn, PatientConnection) or conn.pooled:
        return False
    if conn.releases_early is None:
        row = conn.execute(_CAN).fetchone()
        conn.releases_early = row is not None and row[0] is True
    return conn.releases_early


def wait_for_commits(conn: psycopg.Connection[Any]) -> None:
    """Return once all that was committed on this connection is durable.

    Raises OperationalError where that cannot be told: the connection is lost then, as it is to whoever gets
    no answer to a commit.
    """
    try:
        conn.execute(_WAIT)
    except psycopg.Error as error:
        if conn.broken:
            raise
        conn.pgconn.finish()
        raise psycopg.OperationalError(f"it is unknown whether a commit is durable: {error}") from error
