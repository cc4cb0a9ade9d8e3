"""Whose the schemas are that an installation finds: what our functions call runs as their owner.

Whoever may create a schema in the database can make a ``pgmq``, ``realtime``, ``cron`` or ``pgflow`` before
we do, and what is in it would run as the installing role. So only what belongs to a role that may act as the
installing role anyway is adopted: that role itself, its members, superusers. What belongs to an extension
belongs to who created it. In ``pgflow`` and ``pgmq`` nobody else may create anything either: a function with
fitting arguments could be called instead of ours.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg

from pgflow_mp.errors import SchemaError

SETTINGS: Final[LiteralString] = """\
set local search_path = pg_catalog, pg_temp;
set local standard_conforming_strings = on;
set local quote_all_identifiers = off;
set local check_function_bodies = on;
set local statement_timeout = 0;
set local client_min_messages = warning;
set local plpgsql.extra_errors = 'none';
set local plpgsql.extra_warnings = 'none';"""
"""What a role or a database may have set that changes how our SQL is read, or cuts it short.

Holds to the end of the transaction.
"""

# Of pgmq, the tables of queues are left out: others may have queues of their own (see pgflow._create_queue).
_FOREIGN: Final[LiteralString] = r"""
with adopted as (
  select n.oid, n.nspname, n.nspowner, n.nspacl
  from pg_catalog.pg_namespace n
  where n.nspname in ('pgflow', 'pgmq') or exists (
    select from pg_catalog.pg_proc p
    where p.pronamespace = n.oid
      and (n.nspname, p.proname) in (('realtime', 'send'), ('cron', 'schedule'))
  )
), parts (place, part, owner) as (
  select 1, pg_catalog.format('schema %I', a.nspname), a.nspowner from adopted a
  union all
  select 2, pg_catalog.format('extension %I', e.extname), e.extowner
  from pg_catalog.pg_extension e join adopted a on a.oid = e.extnamespace
  union all
  select 3, pg_catalog.format('function %I.%I', a.nspname, p.proname), p.proowner
  from pg_catalog.pg_proc p join adopted a on a.oid = p.pronamespace
  where a.nspname in ('pgflow', 'pgmq') or (a.nspname, p.proname) in (
    ('realtime', 'send'), ('cron', 'schedule'), ('cron', 'unschedule')
  )
  union all
  select 4, pg_catalog.format('table or type %I.%I', a.nspname, c.relname), c.relowner
  from pg_catalog.pg_class c join adopted a on a.oid = c.relnamespace
  where c.relkind not in ('i', 'I') and (
    a.nspname = 'pgflow'
    or a.nspname = 'pgmq' and pg_catalog.left(c.relname, 2) not in ('q_', 'a_')
    or (a.nspname, c.relname) in (('cron', 'job'), ('cron', 'job_run_details'))
  )
  union all
  select 5, pg_catalog.format('type %I.%I', a.nspname, t.typname), t.typowner
  from pg_catalog.pg_type t join adopted a on a.oid = t.typnamespace
  where a.nspname in ('pgflow', 'pgmq') and t.typrelid = 0 and t.typelem = 0
  union all
  select 6, pg_catalog.format('operator %I.%s', a.nspname, o.oprname), o.oprowner
  from pg_catalog.pg_operator o join adopted a on a.oid = o.oprnamespace
  where a.nspname in ('pgflow', 'pgmq')
), creators as (
  select a.nspname, x.grantee
  from adopted a
  cross join lateral pg_catalog.aclexplode(a.nspacl) x
  where a.nspname in ('pgflow', 'pgmq') and x.privilege_type = 'CREATE'
), foreigners (place, part, message, hint) as (
  select p.place, p.part,
    pg_catalog.format('The %s in this database belongs to role %I, whose code would run with your rights',
      p.part, pg_catalog.pg_get_userbyid(p.owner)),
    pg_catalog.format(
      'Drop it. Or, if you trust that role, install as it, or make it yours: alter %s owner to %I;',
      case when p.place = 3 then 'routine' || pg_catalog.substr(p.part, 9)
        when p.place = 4 then 'table' || pg_catalog.substr(p.part, 14)
        else p.part end,
      current_user)
  from parts p
  where not pg_catalog.pg_has_role(p.owner, current_user, 'usage')
  union all
  select 7, c.nspname,
    pg_catalog.format('Role %s may create in schema %I what would run with your rights', w.who, c.nspname),
    pg_catalog.format('Take that right away: revoke create on schema %I from %s;', c.nspname, w.who)
  from creators c
  cross join lateral (
    select case when c.grantee = 0 then 'public'
      else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.grantee)) end
  ) w (who)
  where case when c.grantee = 0 then true
    else not pg_catalog.pg_has_role(c.grantee, current_user, 'usage') end
)
select f.message, f.hint from foreigners f order by f.place, f.part limit 1"""

SCRIPT: Final[LiteralString] = f"""\
do $adopt$
declare
  v_message pg_catalog.text;
  v_hint pg_catalog.text;
begin
  select f.message, f.hint into v_message, v_hint from ({_FOREIGN}) f;
  if found then
    raise exception '%', v_message using hint = v_hint;
  end if;
end $adopt$;"""  # noqa: S608
"""The same check as a statement for psql."""


def refuse_foreign(conn: psycopg.Connection[Any]) -> None:
    """Raise SchemaError, naming the owner, where a schema that we would use is not ours to trust."""
    found = conn.execute(_FOREIGN).fetchone()
    if found is not None:
        raise SchemaError(found[0], hint=found[1])
