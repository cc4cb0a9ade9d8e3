"""Whoever may call one function of ours must not get anything of its own to run with our rights.

An attacker has a login role with one of our accesses and a schema of its own. It shadows every name that the
bodies of pgflow and pgmq contain: types, relations, functions, operators. Its functions note when they run as
somebody else than who logged in.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import psycopg
import pytest
from database_roles import role_with
from psycopg import sql

from pgflow_mp.db import schema

Connection = psycopg.Connection[Any]

PATH = "search_path=pg_catalog, pg_temp"

TRAP = """
create table pg_temp.loot (who pg_catalog.text, what pg_catalog.text);
create function pg_temp.note(what pg_catalog.text) returns pg_catalog.bool language plpgsql as $$
begin
  if current_user <> session_user then
    insert into pg_temp.loot values (current_user, what);
  end if;
  return true;
end $$;
create function pg_temp.spring() returns trigger language plpgsql as $$
begin
  perform pg_temp.note('trigger ' || tg_table_name);
  return null;
end $$;
"""

# What a word of a body may mean.
BODIES = "select prosrc from pg_catalog.pg_proc where pronamespace::regnamespace::text in ('pgflow', 'pgmq')"
TYPES = """
select t.typname from pg_catalog.pg_type t
where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype = 'b' and t.typelem = 0
"""
RELATIONS = """
select c.relname, c.oid, n.nspname from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'v', 'c') and n.nspname in ('pgflow', 'pgmq', 'pg_catalog')
"""
FUNCTIONS = """
select p.proname, pg_catalog.oidvectortypes(p.proargtypes), pg_catalog.format_type(p.prorettype, null)
from pg_catalog.pg_proc p
where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and not p.proretset
  and p.provariadic = 0 and p.proname !~ '^(has_|pg_has)'
  and not exists (
    select from unnest(array[p.prorettype] || p.proargtypes::oid[]) a (id)
    join pg_catalog.pg_type t on t.oid = a.id where t.typtype = 'p'
  )
"""
OPERATORS = """
select o.oprname, l.typname, r.typname, b.typname
from pg_catalog.pg_operator o
join pg_catalog.pg_type l on l.oid = o.oprleft
join pg_catalog.pg_type r on r.oid = o.oprright
join pg_catalog.pg_type b on b.oid = o.oprresult
where o.oprnamespace = 'pg_catalog'::regnamespace
  and o.oprname in ('=', '<>', '<', '||', '-', '+', '->', '->>', '@>')
  and l.typname in ('text', 'uuid', 'jsonb', 'int4', 'int8', 'timestamptz', 'tid', 'interval')
  and b.typtype <> 'p' and r.typtype <> 'p'
"""
GRANTED = """
select p.oid::regprocedure::text, p.pronamespace::regnamespace || '.' || p.proname as name,
  coalesce(p.proargnames[1:p.pronargs], '{}') as names,
  array(select format_type(a, null) from unnest(p.proargtypes) a) as types
from pg_catalog.pg_proc p
where p.pronamespace = 'pgflow'::regnamespace and has_function_privilege(%s, p.oid, 'execute')
"""
FIRST = (
    *("pgflow.open_load", "pgflow.add_pages", "pgflow.start_loaded"),
    *("pgflow.start", "pgflow.register", "pgflow.claim"),
    *("pgflow.complete_ranges", "pgflow.fail_range", "pgflow.release_ranges"),
    *("pgflow.set_schedule", "pgflow.backfill_schedule"),
)
OF_RANGES: dict[str, dict[str, Any]] = {
    "pgflow.claim_work": {"items": 1000},
    "pgflow.range_pages": {"first_index": 0, "items": 3},
    "pgflow.complete_ranges": {"firsts": [0], "counts": [1], "outputs": ["[1]"]},
    "pgflow.fail_range_items": {"indexes": [1], "permanent": [False]},
    "pgflow.release_ranges": {"firsts": [2], "counts": [1]},
}
"""What each needs to have something of the map "r", whose three items the attacker's worker leases."""
LAST = (
    *("pgflow.complete", "pgflow.fail_tasks", "pgflow.cancel", "pgflow.retry", "pgflow.stop"),
    *("pgflow.resume_schedule", "pgflow.delete_schedule"),
)


def lay_traps(conn: Connection, own: str) -> int:
    """Shadow every name, in the temporary schema and in ``own``; answers how many names."""
    conn.execute(TRAP)
    words = set(re.findall(r"\w+", " ".join(body for (body,) in conn.execute(BODIES))))
    types, relations, functions = (
        [row for row in conn.execute(query).fetchall() if row[0] in words]
        for query in (TYPES, RELATIONS, FUNCTIONS)
    )
    operators = conn.execute(OPERATORS).fetchall()
    views = []
    for name, oid, namespace in relations:
        columns = conn.execute(
            "select quote_ident(attname), format_type(atttypid, null) from pg_catalog.pg_attribute "
            "where attrelid = %s and attnum > 0 and not attisdropped order by attnum",
            (oid,),
        ).fetchall()
        source = f"pg_catalog.{name}" if namespace == "pg_catalog" else "(values (1)) one (n)"
        picked = ", ".join(
            c if namespace == "pg_catalog" else f"null::{t if '.' in t else 'pg_catalog.' + quick(t)} as {c}"
            for c, t in columns
        )
        where = f"pg_temp.note('relation {name}')"
        views.append((name, f"create temp view {name} as select {picked} from {source} where {where}"))
    views.append(("deleted", "create temp view deleted as select pg_temp.note('deleted') as worker_id"))
    for name, statement in views:
        if trial(conn, statement):
            trial(
                conn,
                f"create trigger spring instead of insert or update or delete on pg_temp.{name} "
                "for each row execute function pg_temp.spring()",
            )
    for name, arguments, result in functions:
        body = f"begin perform pg_temp.note('function {name}'); return null; end"
        head = f'create function {own}."{name}"({arguments}) returns {result}'
        trial(conn, f"{head} language plpgsql as $f${body}$f$")
    for number, (name, left, right, result) in enumerate(operators):
        body = f"begin perform pg_temp.note('operator {name}'); return null; end"
        arguments = f"pg_catalog.{left}, pg_catalog.{right}"
        if trial(
            conn,
            f"create function {own}.o{number}({arguments}) returns pg_catalog.{result} "
            f"language plpgsql as $f${body}$f$",
        ):
            trial(
                conn,
                f"create operator {own}.{name} (function = {own}.o{number}, "
                f"leftarg = pg_catalog.{left}, rightarg = pg_catalog.{right})",
            )
    for (name,) in types:  # last: from now on an unqualified name of a type means these
        check = f"pg_temp.note({own}.said('{name}'))"
        conn.execute(f'create domain pg_temp."{name}" as pg_catalog."{name}" check ({check})'.encode())
    return len(types) + len(views) + len(functions) + len(operators)


def quick(type_name: str) -> str:
    """The catalog's name of a type with a name of several words."""
    words = {
        "timestamp with time zone": "timestamptz",
        "integer": "int4",
        "bigint": "int8",
        "boolean": "bool",
        "character varying": "varchar",
        "real": "float4",
        "double precision": "float8",
    }
    base = type_name.removesuffix("[]")
    return words.get(base, base) + type_name[len(base) :]


def trial(conn: Connection, statement: str) -> bool:
    """Run it; False where the server refuses."""
    try:
        conn.execute(statement.encode())
    except psycopg.Error:
        return False
    return True


def argument(name: str, type_name: str, known: dict[str, Any]) -> tuple[str, Any]:
    """A placeholder, cast to the catalog's type, and a plausible value."""
    plausible: dict[str, Any] = {
        "text": "f",
        "jsonb": "[1, 2, 3]",
        "uuid": known["run_id"],
        "integer": 1,
        "bigint": 1,
        "numeric": 1,
        "boolean": True,
        "interval": "10 seconds",
        "integer[]": [0],
        "bigint[]": known["msg_ids"],
        "uuid[]": [known["worker_id"]],
        "text[]": ["e"],
        "jsonb[]": ["1"],
        "boolean[]": [False],
    }
    value = known[name] if name in known else plausible.get(type_name)
    return f"%s::pg_catalog.{quick(type_name)}", value


def call(conn: Connection, function: tuple[Any, ...], known: dict[str, Any]) -> tuple[str, list[Any]]:
    """Call it with plausible arguments: the SQLSTATE of its refusal, or "", and its rows."""
    _, name, names, types = function
    arguments = [argument(n, t, known) for n, t in zip(names, types, strict=True)]
    query = f"select * from {name}({', '.join(placeholder for placeholder, _ in arguments)})"
    try:
        rows = conn.execute(query.encode(), [value for _, value in arguments]).fetchall()
    except psycopg.Error as error:
        return error.sqlstate or "?", []
    return "", rows


def ended_run(admin: Connection) -> Any:
    """The id of a run of the flow that was started and cancelled."""
    run = admin.execute("select run_id from pgflow.start_flow('f', '[1]')").fetchone()
    admin.execute("select pgflow.cancel_run(%s)", run)
    return (run or [None])[0]


def attack(
    dsn: str, access: str, *, limited: bool = False, prepare: str = ""
) -> tuple[list[Any], dict[str, str]]:
    """What ran with other rights than the attacker's, and how every granted function answered."""
    with role_with(dsn, access) as hostile, psycopg.connect(dsn, autocommit=True) as admin:
        with psycopg.connect(hostile, autocommit=True) as conn:
            user, own = conn.info.user, f"own_{uuid.uuid4().hex[:8]}"
            admin.execute(f"create schema {own} authorization {user}".encode())
            admin.execute(
                f"create function {own}.said(what pg_catalog.text) returns pg_catalog.text immutable "
                "language sql as $$ select 'type ' || what $$".encode()
            )
            admin.execute(f"grant execute on all functions in schema {own} to {user}".encode())
            if limited:
                admin.execute("select pgflow.grant_access(%s, %s, array['f'])", (user, access))
            functions = admin.execute(GRANTED, (user,)).fetchall()
            functions.sort(
                key=lambda f: next(
                    (i for i, begin in enumerate((*FIRST, "", *LAST)) if begin and f[1].startswith(begin)),
                    len(FIRST),
                )
            )
            assert lay_traps(conn, own) > 100
            conn.execute(f"set search_path = {own}, pg_temp, public, pg_catalog".encode())
            if prepare:
                admin.execute(prepare.encode())
            answers: dict[str, str] = {}
            leased: uuid.UUID | None = None
            for _ in range(2):
                known: dict[str, Any] = {
                    "flow_slug": "f", "queue_name": "f", "step_slug": "m", "worker_id": uuid.uuid4(),
                    "run_id": uuid.uuid4(), "msg_ids": [1, 2], "qty": 2, "lease_seconds": 30, "attempts": [1],
                    "id_prefix": "", "max_rows": 5, "from_index": 0, "worker_ids": None, "priority": 1,
                    "rate": 1e6, "at_once": 1000, "burst": 1000, "about": "{}", "state": "{}",
                    "name": "n", "cron": "0 * * * *", "time_zone": "UTC", "missed": "once", "due_as": None,
                    "local_times": [],
                    "firsts": [0], "counts": [1], "bodies": ["[1]"], "params": "{}", "input_hash": b"h",
                }  # fmt: skip
                known["worker_ids"] = [known["worker_id"]]
                for function in functions:
                    if function[1].startswith(("pgflow.start_run", "pgflow.start_flow", "pgflow.open_load")):
                        known["run_id"] = uuid.uuid4()
                    known["key"] = function[1]  # taken the first time, known the second
                    if function[1] == "pgflow.start_keyed_load":
                        known["load_id"] = uuid.uuid4()
                        admin.execute("select pgflow.open_load('f', %s)", (known["load_id"],))
                    more = OF_RANGES.get(function[1])
                    if more is not None and function[1] != "pgflow.claim_work":
                        more = {"step_slug": "r", "run_id": leased, "lease_nos": [1], **more}
                    if function[1] == "pgflow.remove_run":  # which takes ended ones only
                        more = {"run_id": ended_run(admin)}
                    if function[1] in ("pgflow.start_run_from", "pgflow.start_loaded_run_from"):
                        more = {"source_run": ended_run(admin), "steps": ["m"], "input": "[1]"}
                    if function[1] == "pgflow.start_loaded_run_from":
                        load = uuid.uuid4()
                        admin.execute("select pgflow.open_load('f', %s)", (load,))
                        admin.execute("select pgflow.add_pages(%s, '{0}', '{1}', '{[1]}')", (load,))
                        more = {**(more or {}), "run_id": load}
                    if function[1] == "pgflow.report_worker":
                        of = {"run": str(known["run_id"]), "step": "m", "items": 1, "failed": 0, "seconds": 1}
                        more = {
                            "timed": json.dumps(
                                [{**of, "counts": [1], "indexes": [0], "slowest": [1], "age": 1}]
                            ),
                            "spans": "[]",
                        }
                    state, rows = call(conn, function, {**known, **(more or {})})
                    answers[function[1]] = state or answers.get(function[1], "")
                    if function[1] == "pgflow.claim_work":
                        leased = next((row[0] for row in rows if row[3] == 3 and row[4] is None), leased)
                    if function[1] == "pgflow.claim_tasks" and rows:
                        known["run_id"], known["msg_ids"] = rows[0][0], [row[3] for row in rows]
            loot = conn.execute("select distinct who, what from pg_temp.loot").fetchall()
        admin.execute(f"drop schema {own} cascade".encode())
        return loot, answers


@pytest.fixture
def flow(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select pgflow.create_flow('f', max_attempts => 2)")
        conn.execute("select pgflow.add_step('f', 'm', step_type => 'map')")
        conn.execute(
            "select pgflow.add_step('f', 'wary', '{m}', required_input_pattern => '{\"m\": [9]}', "
            "when_unmet => 'skip')"
        )
        conn.execute("select pgflow.set_step_policy('f', 'm', tolerated_failures => 1)")
        conn.execute("select pgflow.add_step('f', 'r', step_type => 'map')")
        conn.execute("select pgflow.set_step_policy('f', 'r', storage => 'ranges', tolerated_failures => 1)")
    return dsn


@pytest.mark.parametrize("access", ["starter", "operator", "worker"])
def test_nothing_of_a_caller_s_runs_with_our_rights(flow: str, access: str) -> None:
    loot, answers = attack(flow, access, limited=access != "operator")
    assert loot == []
    # An attack on calls that do nothing would show nothing; a started load is not dropped, however, and a
    # cancelled run is not retried.
    assert answers.pop("pgflow.drop_load") == "PF003"
    assert {name: state for name, state in answers.items() if state} in (
        {},
        {"pgflow.retry_failed_tasks": "PF004"},
    )
    assert "pgflow.start_run" in answers
    if access == "worker":
        with psycopg.connect(flow) as conn:
            done = "select count(*) from pgflow.pages where is_result and step_slug = 'r' and first_index = 0"
            failed = "select count(*) from pgflow.step_tasks where step_slug = 'r' and task_index = 1"
            back = "select count(*) from pgflow.ranges where worker_id is null and first_index = 2"
            assert [conn.execute(q.encode()).fetchone() != (0,) for q in (done, failed, back)] == [True] * 3


EMPTY_PATH = """
do $$ declare f regprocedure; begin
  for f in select oid from pg_catalog.pg_proc where pronamespace = 'pgflow'::regnamespace loop
    execute format('alter function %s set search_path = ''''', f);
  end loop;
end $$
"""


@pytest.mark.parametrize("access", ["starter", "worker"])
def test_the_attack_succeeds_against_the_empty_path_of_before(flow: str, access: str) -> None:
    entries = EMPTY_PATH.replace("regnamespace loop", "regnamespace and prosecdef loop")
    loot, answers = attack(flow, access, prepare=entries)
    assert "type uuid" in {what for _, what in loot}, answers


def paths(conn: Connection) -> dict[str, list[str]]:
    """The settings of every function whose search_path is not the one that it must have."""
    found = conn.execute(
        "select oid::regprocedure::text, coalesce(proconfig, '{}') from pg_proc "
        "where pronamespace = 'pgflow'::regnamespace"
    ).fetchall()
    assert len(found) > 60
    return {
        name: config for name, config in found if [c for c in config if c.startswith("search_path")] != [PATH]
    }


def test_every_function_looks_in_the_catalog_first_and_in_temporary_schemas_last(conn: Connection) -> None:
    assert paths(conn) == {}


def test_an_upgrade_replaces_the_paths_of_functions_that_were_landed_before(empty_dsn: str) -> None:
    old = sql.SQL("set search_path = ''")
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        schema.install(conn)
        conn.execute(EMPTY_PATH.encode())
        for statement in (
            "create function pgflow._gone(a text, b int default 1) returns int language sql {} as 'select 1'",
            "create procedure pgflow._nor_this() language sql {} as 'select 1'",
            "create function pgflow._old() returns trigger language plpgsql {} as 'begin return null; end'",
            "alter function pgflow._old() security definer",
            "update pgflow.schema_version set functions_digest = 'older', package_version = '0.0.1'",
        ):
            conn.execute(sql.SQL(statement).format(old) if "{}" in statement else statement.encode())
        assert len(paths(conn)) > 60
        schema.install(conn)
        assert paths(conn) == {}
        assert open_to_all(conn) == []


def open_to_all(conn: Connection) -> list[Any]:
    """Functions that PUBLIC may execute."""
    return conn.execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'pgflow'::regnamespace "
        "and has_function_privilege('public', oid, 'execute')"
    ).fetchall()


def test_functions_are_qualified_and_fixed_in_whatever_parses_them(conn: Connection) -> None:
    """Those that call pgmq: its bodies mean something else where backslashes escape."""
    found = conn.execute(
        r"select proname from pg_proc where pronamespace = 'pgflow'::regnamespace "
        r"and prosrc ~ '\mpgmq\.[a-z_]+\(' and not 'standard_conforming_strings=on' = any (proconfig)"
    ).fetchall()
    assert found == []
