"""The queue, pgmq: the server's extension where it offers one, else the SQL of the PyPI package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from pgflow_mp.errors import SchemaError

# The catalogs themselves: to_regclass wants rights on the schema, and may answer from a cache that is old.
_IS_THERE: Final[LiteralString] = (
    "exists (select from pg_extension where extname = 'pgmq') or exists (select from pg_class c "
    "join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'pgmq' and c.relname = 'meta')"
)
_IS_OFFERED: Final[LiteralString] = "exists (select from pg_available_extensions where name = 'pgmq')"
# What we call, and what our statements read, sorted by what a user is told first. pgmq 1.5 has all of it.
# Types are compared as such: how they are printed is a matter of settings.
_LACKS: Final[LiteralString] = """\
  select 'pgmq.' || f.name || '(' || f.shown || ')' as what, f.place
  from (values
    (1, 'send_batch', 'text, jsonb[], integer', '{pg_catalog.text, pg_catalog.jsonb[], pg_catalog.int4}'),
    (2, 'archive', 'text, bigint[]', '{pg_catalog.text, pg_catalog.int8[]}'),
    (3, 'delete', 'text, bigint[]', '{pg_catalog.text, pg_catalog.int8[]}'),
    (4, 'create', 'text', '{pg_catalog.text}'),
    (5, 'drop_queue', 'text', '{pg_catalog.text}'),
    (6, 'list_queues', '', '{}'),
    (7, 'format_table_name', 'text, text', '{pg_catalog.text, pg_catalog.text}')
  ) f (place, name, shown, types)
  where not exists (
    select from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'pgmq' and p.proname = f.name
      and array(select unnest(p.proargtypes)) = f.types::regtype[]::oid[]
  )
  union all
  select 'pgmq.message_record.' || a.name, a.place
  from (values
    (11, 'msg_id'), (12, 'read_ct'), (13, 'enqueued_at'), (14, 'vt'), (15, 'message'), (16, 'headers')
  ) a (place, name)
  where not exists (
    select from pg_attribute t
    join pg_class c on c.oid = t.attrelid
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'pgmq' and c.relname = 'message_record' and t.attname = a.name and not t.attisdropped
  )"""
_TOO_OLD: Final[LiteralString] = f"""\
select
  'The queue (schema pgmq) in this database is too old: ' || l.missing || ' is missing; '
    || coalesce('it is version ' || e.extversion || ', and ', '') || 'pgflow_mp needs pgmq 1.5 or later'
    as message,
  case
    when e.extversion is null then 'Bring its SQL up to date as it was installed. Where nothing else uses it '
      'and no run is under way, remove it and install again: drop schema pgmq cascade;'
    when v.default_version = e.extversion then 'This server has no newer one: install a newer package of '
      'the extension on the server, then: alter extension pgmq update;'
    else 'Upgrade it: alter extension pgmq update;'
  end as hint
from (select (array_agg(m.what order by m.place))[1] as missing from ({_LACKS}) m) l
left join pg_extension e on e.extname = 'pgmq'
left join pg_available_extensions v on v.name = 'pgmq'
where l.missing is not null"""  # noqa: S608


def is_there(conn: psycopg.Connection[Any]) -> bool:
    """Whether the database has it, in whatever version. Every role may ask."""
    return conn.execute(f"select {_IS_THERE}").fetchone() == (True,)


def refuse_too_old(conn: psycopg.Connection[Any]) -> None:
    """Raise SchemaError, with its version, for one that lacks what we call. Every role may ask."""
    found = conn.execute(_TOO_OLD).fetchone()
    if found is not None:
        raise SchemaError(found[0], hint=found[1])


def install(conn: psycopg.Connection[Any]) -> str:
    """Make it exist; where it came from. Raises SchemaError for one that is too old."""
    if is_there(conn):
        origin = "present"
    elif conn.execute(f"select {_IS_OFFERED}").fetchone() == (True,):
        conn.execute("create extension pgmq")
        origin = "extension"
    else:
        conn.execute(_bundled())
        origin = "bundled SQL"
    refuse_too_old(conn)
    return origin


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
do $$
declare
  v_message text;
  v_hint text;
begin
  select o.message, o.hint into v_message, v_hint from ({_TOO_OLD}) o;
  if found then
    raise exception '%', v_message using hint = v_hint;
  end if;
end $$;"""  # noqa: S608


def _bundled() -> str:
    """The SQL of the package ``pgmq``. Raises SchemaError where it is not installed."""
    # Found, not imported: it is a client as well, with a pool and a JSON library that we have no use for.
    package = importlib.util.find_spec("pgmq")
    if package is None or package.origin is None:
        raise SchemaError(
            "The SQL of the queue is not installed (package pgmq), and the server does not offer it",
            hint="Install the extension pgmq on the server, or the package here: pip install pgmq",
        )
    return (Path(package.origin).parent / "sql" / "pgmq.sql").read_text(encoding="utf-8")
