"""What a session of ours has, whatever server, database, role and environment have set: one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from psycopg.rows import TupleRow

from pgflow_mp.db.patience import PatientConnection

_LIMITS: Final[Mapping[str, str]] = dict.fromkeys(
    (
        "statement_timeout",
        "lock_timeout",
        "transaction_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
    ),
    "0",
)
"""Limits that a role or a database may have for its people. A large step takes its time to start or to end:
cut off, it would be tried again for ever. Nor may a session that listens end for its silence. A worker
watches its connections itself (patience)."""
SESSION: Final[Mapping[str, str]] = {
    **_LIMITS,
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "xmloption": "content",
    "quote_all_identifiers": "off",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "row_security": "on",
    "search_path": "pg_catalog, pg_temp",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}
"""What a session of ours has, whatever server, database, role and environment have set.

Everything that changes how text is read or written, or what a statement means. Not
``default_transaction_read_only``: who sets that wants nothing written. A setting that this server does not
know is left out.
"""
_LIVENESS: Final[Mapping[str, str]] = {
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""What has the server notice within 30 s that we vanished without a word (power cut, cable), as we notice it
of the server. By default that takes two hours, a quarter of one in the midst of an answer, and locks stay so
long."""
_KEPT_BY_POOLERS: Final = ("DateStyle", "IntervalStyle", "TimeZone", "standard_conforming_strings")
"""What a transaction pooler carries from one server process to the next. All else would stay with a server
process and reach strangers, so it is not set there: no statement may depend on it."""
_APPLY: Final = """
select pg_catalog.set_config(name, value, false), pg_catalog.pg_backend_pid()
from unnest(%s::pg_catalog.text[], %s::pg_catalog.text[], %s::pg_catalog.bool[]) s (name, value, kept)
where (kept or pg_catalog.pg_backend_pid() operator(pg_catalog.=) %s::pg_catalog.int4)
  and pg_catalog.current_setting(name, true) is not null
"""
_LIMITED: Final = "select 1 from unnest(%s::text[]) name where current_setting(name, true) <> '0' limit 1"
_RELAX: Final = (
    "select set_config(name, '0', true) from unnest(array['statement_timeout', 'lock_timeout', "
    "'transaction_timeout', 'idle_in_transaction_session_timeout']) name "
    "where current_setting(name, true) <> '0'"
)


def set_up(conn: PatientConnection[TupleRow]) -> None:
    """Give a new session what SESSION says, in one statement.

    A pooler shows another process id than the server has: it hands out made-up ones. There limits are lifted
    transaction by transaction, if there are any.
    """
    wanted = {**SESSION, **_LIVENESS}
    kept, shown = [name in _KEPT_BY_POOLERS for name in wanted], conn.info.backend_pid
    row = conn.execute(_APPLY, (list(wanted), list(wanted.values()), kept, shown)).fetchone()
    conn.pooled = row is not None and row[1] != shown
    if conn.pooled and conn.execute(_LIMITED, (list(_LIMITS),)).fetchone():
        conn.relax = _RELAX
    if not conn.autocommit:
        conn.commit()
