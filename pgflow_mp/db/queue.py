"""The queue, pgmq: the server's extension where it offers one, else the SQL of the PyPI package."""

from __future__ import annotations

from importlib import resources
from typing import Final, LiteralString

import psycopg

from pgflow_mp.errors import SchemaError

# The catalogs themselves: to_regclass wants rights on the schema, and may answer from a cache that is old.
_IS_THERE: Final[LiteralString] = (
    "exists (select from pg_extension where extname = 'pgmq') or exists (select from pg_class c "
    "join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'pgmq' and c.relname = 'meta')"
)
_IS_OFFERED: Final[LiteralString] = "exists (select from pg_available_extensions where name = 'pgmq')"
_IS_NEW_ENOUGH: Final[LiteralString] = "to_regprocedure('pgmq.send_batch(text,jsonb[],integer)') is not null"
_TOO_OLD: Final = (
    "the queue (schema pgmq) in this database is too old: pgmq.send_batch(text, jsonb[], int) is missing"
)
_UPDATE: Final = "Upgrade pgmq to 1.5 or later: alter extension pgmq update;"


def is_there(conn: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether the database has it, in whatever version. Every role may ask."""
    return conn.execute(f"select {_IS_THERE}").fetchone() == (True,)


def install(conn: psycopg.Connection[tuple[object, ...]]) -> str:
    """Make it exist; where it came from. Raises SchemaError for one that is too old."""
    if is_there(conn):
        if conn.execute(f"select {_IS_NEW_ENOUGH}").fetchone() != (True,):
            raise SchemaError(_TOO_OLD, hint=_UPDATE)
        return "present"
    if conn.execute(f"select {_IS_OFFERED}").fetchone() == (True,):
        conn.execute("create extension pgmq")
        return "extension"
    conn.execute(_bundled())
    return "bundled SQL"


def script(*, bundled: bool) -> str:
    """The same for psql; with ``bundled`` the extension is left alone."""
    offered = "false" if bundled else _IS_OFFERED
    return f"""\
select not ({_IS_THERE}) as pgflow_lacks_queue, {offered} as pgflow_offers_pgmq \\gset
\\if :pgflow_lacks_queue
\\if :pgflow_offers_pgmq
create extension pgmq;
\\else
{_bundled()}
\\endif
\\endif
do $$ begin
  if not ({_IS_NEW_ENOUGH}) then
    raise exception '{_TOO_OLD}' using hint = '{_UPDATE}';
  end if;
end $$;"""


def _bundled() -> str:
    return (resources.files("pgmq") / "sql" / "pgmq.sql").read_text(encoding="utf-8")
