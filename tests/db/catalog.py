"""A comparable picture of what an installation created in a database."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg

_PARTS: dict[str, LiteralString] = {
    "columns": """
        select c.relname, c.relkind::text, a.attnum::int, a.attname, format_type(a.atttypid, a.atttypmod),
          a.attnotnull, a.attstorage::text, pg_get_expr(d.adbin, d.adrelid), c.reloptions::text
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
        where c.relnamespace = 'pgflow'::regnamespace and c.relkind in ('r', 'v', 'c')
          and c.relname <> 'schema_version'
        order by 1, 3""",
    "constraints": """
        select conrelid::regclass::text, conname, contype::text, pg_get_constraintdef(oid)
        from pg_constraint where connamespace = 'pgflow'::regnamespace
          and conrelid <> 'pgflow.schema_version'::regclass and contype <> 'n'
        order by 1, 2""",
    "indexes": """
        select tablename, indexname, indexdef from pg_indexes
        where schemaname = 'pgflow' and tablename <> 'schema_version' order by 1, 2""",
    "functions": """
        select p.oid::regprocedure::text, pg_get_function_result(p.oid), p.prosecdef, p.provolatile::text,
          p.proconfig::text, md5(p.prosrc), p.proacl::text
        from pg_proc p where p.pronamespace = 'pgflow'::regnamespace order by 1""",
    "triggers": """
        select tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) from pg_trigger
        where not tgisinternal and tgrelid::regclass::text like 'pgflow.%%' order by 1, 2""",
}


def catalog(conn: psycopg.Connection[Any]) -> dict[str, list[tuple[Any, ...]]]:
    """Tables, constraints, indexes, functions and triggers of the pgflow schema, by kind."""
    return {kind: conn.execute(query).fetchall() for kind, query in _PARTS.items()}
