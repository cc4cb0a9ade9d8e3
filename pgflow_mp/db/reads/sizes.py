"""How much room what is ours takes in a database. Whoever may connect may ask."""

from __future__ import annotations

from typing import Final

import msgspec

from pgflow_mp.db import rights
from pgflow_mp.db.engine import Connection

_TABLES: Final = """
select n.nspname || '.' || c.relname, pg_total_relation_size(c.oid), greatest(s.n_live_tup, 0), s.n_dead_tup
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_stat_all_tables s on s.relid = c.oid
where n.nspname in ('pgflow', 'pgmq') and c.relkind = 'r'
order by 2 desc, 1
"""
_ENDED: Final = """
select count(*), extract(epoch from now() - min(coalesce(r.completed_at, r.failed_at)))::float8 / 86400
from pgflow.runs r
where r.status in ('completed', 'failed')
"""


class TableSize(msgspec.Struct, frozen=True):
    """A table with its indexes and large values, in bytes; rows as the statistics know them."""

    name: str
    bytes: int
    rows: int
    dead_rows: int


class DatabaseSize(msgspec.Struct, frozen=True):
    """A database, in bytes; ``tables`` are ours, the largest first.

    ``ended_runs`` are still there, ``oldest_days`` since the first of them ended; None where this role must
    not read runs.
    """

    total_bytes: int
    ours_bytes: int
    tables: list[TableSize]
    ended_runs: int | None
    oldest_days: float | None


def database_size(conn: Connection) -> DatabaseSize:
    """Ask for all of it."""
    tables = [TableSize(*row) for row in conn.execute(_TABLES).fetchall()]
    row = conn.execute("select pg_database_size(current_database())").fetchone()
    ended = rights.read(conn, lambda conn: conn.execute(_ENDED).fetchone(), lambda conn: None)
    runs, days = ended or (None, None)
    return DatabaseSize(row[0] if row else 0, sum(table.bytes for table in tables), tables, runs, days)
