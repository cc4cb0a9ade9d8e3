"""Roles that were granted some flows only: what they cannot start, see, work on or control."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from .helpers import (
    WORKER,
    Db,
    claim,
    complete,
    event_names,
    flow,
    map_step,
    run_row,
    snapshot,
    start,
    tasks,
    worker,
)

ROLE, OTHER = "pgflow_limited", "pgflow_unlimited"
QUESTION = uuid.UUID(int=77)
THEIRS = uuid.UUID("22222222-2222-2222-2222-222222222222")
GRANTED = """
select p.proname as name, p.oid::regprocedure::text as signature, p.proargnames[1:p.pronargs] as names,
  array(select format_type(a, null) from unnest(p.proargtypes) a) as types
from pg_proc p
where p.pronamespace = 'pgflow'::regnamespace and has_function_privilege(%s, p.oid, 'execute')
order by 1
"""
READING = {
    "flow_options",
    "get_run_with_states",
    "recent_runs",
    "run_progress",
    "run_results",
    "run_heads",
    "run_events",
}
READING |= {"watched_workers", "task_input", "paged_input", "output_page", "flow_queues"}
READING |= {"range_pages", "complete_ranges", "fail_range_items", "release_ranges"}  # no map in ranges here
READING |= {"run_input", "run_output", "step_output", "run_leaves", "run_results_page", "item"}
READING |= {"run_failures", "run_tallies", "finished_items"}
READING |= {"start_keyed_run", "run_of_key", "keys_of_runs"}  # each run here has the key
READING |= {"known_artifact_stores", "worker_processes", "item_times", "slowest_items", "run_spans"}
NOTHING_YET = {"run_leaves", "run_failures", "range_pages", "output_page", "prune_runs"}
NOTHING_YET |= {"run_reuses", "steps_added", "add_new_steps", "retry_items", "gone_runs"}
READING |= {
    "failed_since",
    "failure_lines",
    "failed_items",
    "resume_flow",
    "resume_run",
    "reset_limit",
}  # nothing is
READING |= {"list_runs", "run_report", "list_steps", "list_items", "list_workers", "list_flows"}
READING |= {"flow_activity", "flow_settings", "tag_run"}  # each run here has the tag
NOTHING_YET |= {"failed_since", "failure_lines", "failed_items", "list_pauses"}
NOTHING_YET |= {"list_limits", "list_requirements"}
NOTHING_YET |= {"stack_answers", "count_ended_runs"}
READING |= {"open_stack_questions", "ask_stacks"}
NOTHING_YET |= {"item_times", "slowest_items", "run_spans", "worker_processes"}
"""What finds nothing in a run that has just begun and has no map in ranges."""
NOTHING: list[list[Any]] = [[], [None], [""], [0], [False], [{"runs": 0, "removed": 0, "is_done": True}]]
UPKEEP = {"requeue_stalled_tasks", "fail_stalled_tasks", "recover_dead_workers", "recover_workers"}
"""What looks after the tasks of all flows by the clock, whoever calls it: no caller can tell it which."""
UPKEEP |= {"fire_schedules", "schedules_wait", "schedules_to_plan"}  # of the flows that the caller may use
UPKEEP |= {"installation_id"}  # which is about no flow

READING |= {"schedules", "schedule_input", "schedule_times", "resume_schedule"}  # which is not paused

LOADING = {"open_load", "add_pages", "start_loaded_run", "start_keyed_load", "drop_load"}
LOADING |= {"start_loaded_run_from"}
"""What is about a run that is yet to be started: see the test of loads."""


SCHEDULE = """
with made as (
  insert into pgflow.schedules (flow_slug, name, cron, time_zone, input, owner_id)
  values (%s, 'n', '* * * * *', 'UTC', '[]', 10) returning schedule_id
)
insert into pgflow.schedule_times
select schedule_id, date_trunc('hour', now() - interval '1 hour'), 'x' from made
"""


@contextmanager
def acting(db: Db, role: str = ROLE) -> Iterator[None]:
    db.do(f"set local role {role}")
    yield
    db.do("reset role")


@pytest.fixture
def limited(db: Db) -> Db:
    """Flows a and b with a run each, under way; a role for each access to flow a."""
    for name in (ROLE, OTHER):
        db.do(f"create role {name}")
    for slug in ("a", "b"):
        flow(db, slug, map_step("m"), "s", max_attempts=1)
        run = start(db, slug, [1, 2, 3])
        db.do("insert into pgflow.artifact_stores values (%s, '/old')", slug)
        db.do("insert into pgflow.run_tags values (%s, 'theirs', now())", run)
        db.do("insert into pgflow.run_keys values (%s, 'k', %s, '0')", slug, run)
        db.do(SCHEDULE, slug)
    db.do("insert into pgflow.stack_questions values (%s, %s, %s)", QUESTION, THEIRS, OTHER)
    db.do("select pgflow.grant_access(%s, 'operator', array['a'])", ROLE)
    db.do("select pgflow.grant_access(%s, 'worker', flows => array['a'])", ROLE)
    for access in ("operator", "worker"):
        db.do("select pgflow.grant_access(%s, %s)", OTHER, access)
    return db


def run_of(db: Db, slug: str) -> uuid.UUID:
    found: uuid.UUID = db.value("select run_id from pgflow.runs where flow_slug = %s limit 1", slug)
    return found


def values(db: Db, run: uuid.UUID, slug: str) -> dict[str, Any]:
    """Arguments by name, such that every function finds something of this run, and of its workers."""
    ids = [t.message_id for t in tasks(db, run)]
    due = db.row("select schedule_id, planned_until from pgflow.schedules where flow_slug = %s", slug)
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    return {
        "flow_slug": slug, "queue_name": slug, "run_id": run, "run_ids": [run], "step_slug": "m",
        "worker_id": THEIRS, "worker_ids": [THEIRS], "msg_ids": ids, "task_indexes": [0], "task_index": 0,
        "input": [7], "outputs": ["1"], "error_messages": ["e"], "attempts": [1],
        "permanent": [True], "lease_seconds": 60, "qty": 5,
        "keep": "-1 hour", "flow_slugs": [slug], "item_index": 0,
        "after_time": None, "after_step": None, "after_index": None,
        "id_prefix": "", "from_index": 0, "max_rows": 9, "max_bytes": 99,
        "priority": 3, "reason": "no", "function_name": "w", "dead_after": "1 hour",
        "last_seen": ["2020-01-01"], "mine": [THEIRS], "tasks": [1],
        "items": 5, "known": [], "lease_nos": [1], "firsts": [0], "counts": [1], "indexes": [1],
        "errors": ["e"], "first_index": 0, "bodies": ["[1]"], "params": {}, "but_steps": None,
        "key": "k", "input_hash": b"0",
        "missing": "{[0,9)}", "with_inputs": True, "step_slugs": None, "item_indexes": None,
        "labels": ["gpu"], "usable": 5, "own_run": run, "is_only": True,
        "at_once": 3, "rate": 2.0, "burst": 1,
        "error_texts": None, "dry_run": False, "url": "/new", "containing": "e", "max_chars": 9,
        "source_run": run, "steps": ["m"], "reads_input": None,
        "since": "2020-01-01", "until": None, "tags": ["theirs"],
        "statuses": None, "before_at": None, "before_id": None, "after": "a" if slug == "b" else "",
        "alive_only": True, "worker": str(THEIRS),
        "max_runs": 9, "name": "n", "cron": "@daily", "time_zone": "UTC", "missed": "all", "due_as": None,
        "problem": None,
        "times": [minute - timedelta(minutes=1), minute + timedelta(hours=1)], "local_times": ["x", "y"],
        "schedule_id": due.schedule_id, "revision": 1, "planned_until": due.planned_until, "is_planned": True,
        "question_id": QUESTION, "question_ids": [QUESTION], "answer": {"lanes": []},
        "process_id": THEIRS, "report_no": 9, "about": {"host": "h", "flows": [slug]}, "state": {"lanes": 1},
        "timed": [{"run": str(run), "step": "m", "items": 1, "failed": 0, "seconds": 1, "counts": [1],
                   "indexes": [0], "slowest": [1], "age": 1}],
        "spans": [{"run": str(run), "step": "m", "lane": 0, "index": 0, "items": 1, "failed": 0,
                   "outcome": "completed", "seconds": 1, "start": 2, "end": 1}],
    }  # fmt: skip


def call(db: Db, function: Any, known: dict[str, Any]) -> tuple[str, Any]:
    """The SQLSTATE, or "" and the rows; an argument that the table does not know is an error of the test."""
    given: dict[str, tuple[Any, str]] = {}
    for name, type_name in zip(function.names or [], function.types, strict=True):
        if name == "run_id" and function.name.startswith(("start_", "open_")):
            given[name] = (None, type_name)
            continue
        value = known[name]
        given[name] = (json.dumps(value) if type_name == "jsonb" else value, type_name)
    arguments = ", ".join(f"{name} => %s::{type_name}" for name, (_, type_name) in given.items())
    try:
        with db.savepoint():
            rows = db.rows(
                f"select to_jsonb(r) as row from pgflow.{function.name}({arguments}) r",
                *[value for value, _ in given.values()],
            )
            return "", [row.row for row in rows]
    except psycopg.Error as error:
        return error.sqlstate or "?", None


def everything(db: Db, run: uuid.UUID) -> dict[str, list[Any]]:
    return {
        **snapshot(db, run),
        "events": event_names(db, run),
        "workers": db.column("select to_jsonb(w) from pgflow.workers w where worker_id = %s", THEIRS),
        "runs": db.column("select run_id from pgflow.runs where flow_slug = 'b'"),
        "parked": db.column("select to_jsonb(p) from pgflow.parked p where run_id = %s", run),
        "stores": db.column("select url from pgflow.artifact_stores where flow_slug = 'b' order by 1"),
        "limits": db.column("select to_jsonb(l) from pgflow.limits l where flow_slug = 'b'"),
        "pauses": db.column("select to_jsonb(p) from pgflow.pauses p where flow_slug = 'b'"),
        "tags": db.column("select tag from pgflow.run_tags where run_id = %s", run),
        "schedules": db.column("select to_jsonb(s) from pgflow.schedules s where flow_slug = 'b'"),
        "times": db.column(
            "select to_jsonb(t) from pgflow.schedule_times t join pgflow.schedules s using (schedule_id) "
            "where flow_slug = 'b' order by due_at"
        ),
        "keys": db.column("select to_jsonb(k) from pgflow.run_keys k where run_id = %s", run),
        "processes": db.column("select to_jsonb(p) from pgflow.worker_processes p"),
        "item times": db.column("select to_jsonb(t) from pgflow.step_times t where run_id = %s", run),
        "spans": db.column("select to_jsonb(s) from pgflow.lane_spans s where run_id = %s", run),
        "questions": db.column("select to_jsonb(q) from pgflow.stack_questions q"),
    }


@pytest.mark.parametrize(
    "state",
    ["under way", *(pytest.param(state, marks=pytest.mark.slow) for state in ("failed", "completed"))],
)
def test_no_granted_function_touches_or_shows_another_flow(limited: Db, state: str) -> None:
    run = run_of(limited, "b")
    claim(limited, "b", 3, THEIRS, vt=100)
    limited.do("update pgflow.workers set dead_after = '1 hour'")
    if state == "failed":
        limited.do("select pgflow.cancel_run(%s)", run)
    elif state == "completed":
        limited.do("select pgmq.set_vt('b', msg_id, 0) from pgmq.q_b")
        for task in [*tasks(limited, run), *claim(limited, "b", 9, THEIRS)]:
            complete(limited, run, task.step_slug, 1, task.task_index)
        assert run_row(limited, run).status == "completed"
    before = everything(limited, run)
    functions = [f for f in limited.rows(GRANTED, ROLE) if f.name not in LOADING]
    assert {"start_run", "claim_tasks", "cancel_run", "run_results"} <= {f.name for f in functions}
    known = values(limited, run, "b")
    for function in functions:
        for attempt in (known, {**known, "flow_slug": "a", "queue_name": "a"}):
            with acting(limited):
                state_, rows = call(limited, function, attempt)
            shown = json.dumps(rows, default=str)
            assert state_ in ("", "42501", "PF009"), function.signature
            assert str(run) not in shown, function.signature
            assert str(THEIRS) not in shown, function.signature
            if attempt is known and function.name not in UPKEEP:
                assert state_ == "42501" or rows in NOTHING, (function.signature, rows)
            if function.name == "register_worker" and attempt is not known:
                continue
            assert everything(limited, run) == before, function.signature
    with acting(limited, OTHER):
        leaves = limited.column("select step_slug from pgflow.run_leaves(%s)", run)
    assert leaves == (["m", "s"] if state == "completed" else [])


def test_the_same_calls_do_touch_it_without_the_limit(limited: Db) -> None:
    """Else the test above would show nothing."""
    run = run_of(limited, "b")
    known = values(limited, run, "b")
    claim(limited, "b", 3, THEIRS, vt=100)
    limited.do("update pgflow.workers set dead_after = '1 hour'")
    before = everything(limited, run)
    for function in limited.rows(GRANTED, OTHER):
        if function.name in UPKEEP | LOADING:
            continue
        with limited.conn.transaction(force_rollback=True):
            with acting(limited, OTHER):
                state, rows = call(limited, function, known)
            reads = function.name in READING
            if function.name in ("retry_failed_tasks", "remove_run"):
                assert state == "PF004"
            elif function.name.startswith("claim_tasks") or function.name in NOTHING_YET:
                assert state == ""  # nothing is to be had
            else:
                assert rows, function.signature
                assert reads or everything(limited, run) != before, function.signature


def test_no_load_of_another_flow_is_opened_or_changed(limited: Db) -> None:
    load = limited.value("select pgflow.open_load('b')")
    limited.do("select pgflow.add_pages(%s, '{0}', '{1}', '{[1]}')", load)
    for call in (
        *("add_pages(%s, '{1}', '{1}', '{[1]}')", "start_loaded_run(%s)", "drop_load(%s)"),
        "start_loaded_run_from(%s, '{}', gen_random_uuid(), '{m}')",
        *("start_keyed_load(%s, 'k', '0')", "start_keyed_load(%s, 'other', '0')"),
    ):
        with acting(limited):
            assert limited.refused(f"select pgflow.{call}", load).sqlstate == "42501"
    with acting(limited):
        assert limited.refused("select pgflow.open_load('b')").sqlstate == "42501"
        own = limited.value("select pgflow.open_load('a')")
        limited.do("select pgflow.add_pages(%s, '{0}', '{1}', '{[1]}')", own)
        assert limited.value("select pgflow.start_loaded_run(%s)", own) == own


def test_a_limited_role_works_its_own_flow_to_the_end(limited: Db) -> None:
    with acting(limited):
        run = limited.value("select pgflow.start_run('a', '[1]')")
        limited.do("select pgflow.register_worker(%s, 'a', 'w', '10 seconds')", WORKER)
        assert limited.rows("select * from pgflow.heartbeat(array[%s]::uuid[])", WORKER)
        found = limited.rows("select * from pgflow.claim_tasks('a', %s, 9)", WORKER)
        assert len(found) == 6
        for task in found:
            limited.do(
                "select pgflow.complete_tasks(%s, %s, array[%s], array['1'::jsonb])",
                task.run_id,
                task.step_slug,
                task.task_index,
            )
        assert limited.value("select pgflow.get_run_with_states(%s)", run)["run"]["status"] == "completed"
        assert {r.flow for r in limited.rows("select * from pgflow.recent_runs()")} == {"a"}


def test_a_batch_with_ids_of_another_flow_and_nulls_takes_its_own_only(limited: Db) -> None:
    claim(limited, "b", 3, THEIRS, vt=100)
    own = claim(limited, "a", 3, THEIRS, vt=100)
    before = everything(limited, run_of(limited, "b"))
    theirs = [t.message_id for t in tasks(limited, run_of(limited, "b"))]
    mixed = [None, *theirs, *[t.msg_id for t in own], 999]
    with acting(limited):
        left = limited.column("select pgflow.extend_tasks('a', %s, %s::bigint[], 9)", THEIRS, mixed)
        assert set(left) >= {999} - set(theirs)
        assert limited.value("select pgflow.release_tasks('a', %s, %s::bigint[])", THEIRS, mixed) == 3
    assert everything(limited, run_of(limited, "b")) == before
    run = run_of(limited, "a")
    with acting(limited):
        for slug in (None, "", "no such step"):
            query = "select (pgflow.complete_tasks(%s, %s, array[0, null], array['1', null]::jsonb[])).*"
            assert limited.row(query, run, slug).accepted == 0
        for slug in (None, "b", "A", "a ", ""):
            assert limited.refused("select pgflow.start_run(%s, '[1]')", slug).sqlstate == "42501"
            refused = limited.refused("select * from pgflow.claim_tasks(%s, %s, 1, 9)", slug, THEIRS)
            assert refused.sqlstate == "42501"
        assert limited.rows("select * from pgflow.run_heads(array[%s, null, %s]::uuid[])", run, THEIRS)


def test_who_reaches_us_through_a_limited_role_s_function_may_use_no_flow(limited: Db) -> None:
    """A function with its owner's rights: the caller is not limited, and may execute nothing itself."""
    limited.do("create role pgflow_accomplice")
    limited.do("create schema wrapped")
    limited.do(f"grant all on schema wrapped to {ROLE}, {OTHER}")
    limited.do("grant usage on schema wrapped to pgflow_accomplice")
    for owner, name in ((ROLE, "by_limited"), (OTHER, "by_unlimited")):
        with acting(limited, owner):
            limited.do(
                f"create function wrapped.{name}(slug text) returns uuid language sql security definer "
                "as $$ select pgflow.start_run(slug, '[1]') $$"
            )
            limited.do(f"grant execute on function wrapped.{name} to public")
    with acting(limited, "pgflow_accomplice"):
        for name in ("by_limited", "by_unlimited"):
            for slug in ("a", "b"):
                assert limited.refused(f"select wrapped.{name}(%s)", slug).sqlstate == "42501"
    with acting(limited):
        assert limited.refused("select wrapped.by_unlimited('b')").sqlstate == "42501"
        limited.do("select wrapped.by_unlimited('a')")
    limited.do("delete from pgflow.flow_grants")
    with acting(limited, "pgflow_accomplice"):
        limited.do("select wrapped.by_unlimited('b')")  # where nobody is limited, this is nobody's business


def test_members_are_limited_with_a_role_and_owners_are_not(limited: Db) -> None:
    limited.do(f"create role pgflow_member in role {ROLE}")
    with acting(limited, "pgflow_member"):
        assert limited.refused("select pgflow.start_run('b', '[1]')").sqlstate == "42501"
        limited.do("select pgflow.start_run('a', '[1]')")
    limited.do(f"grant {OTHER} to pgflow_member")
    with acting(limited, "pgflow_member"):
        assert limited.refused("select pgflow.start_run('b', '[1]')").sqlstate == "42501"
    limited.do("select pgflow.start_run('b', '[1]')")
    with acting(limited, OTHER):
        limited.do("select pgflow.start_run('b', '[1]')")


def test_a_limit_stays_until_it_is_taken_away(limited: Db) -> None:
    def may(slug: str) -> bool:
        with acting(limited):
            try:
                with limited.savepoint():
                    limited.do("select pgflow.start_run(%s, '[1]')", slug)
            except psycopg.errors.InsufficientPrivilege:
                return False
        return True

    limited.do("select pgflow.grant_access(%s, 'starter')", ROLE)
    assert (may("a"), may("b")) == (True, False)
    limited.do("select pgflow.grant_access(%s, 'starter', array['b', 'b'])", ROLE)
    assert (may("a"), may("b")) == (False, True)
    limited.do(f"alter role {ROLE} rename to pgflow_renamed")
    limited.do("set local role pgflow_renamed")
    assert limited.refused("select pgflow.start_run('a', '[1]')").sqlstate == "42501"
    limited.do("reset role")
    limited.do(f"alter role pgflow_renamed rename to {ROLE}")
    limited.do("select pgflow.grant_access(%s, 'starter', null)", ROLE)
    assert (may("a"), may("b")) == (True, True)
    limited.do("create role pgflow_gone")
    limited.do("select pgflow.grant_access('pgflow_gone', 'starter', array['a'])")
    limited.do("drop owned by pgflow_gone; drop role pgflow_gone")
    assert (may("a"), may("b")) == (True, True)


@pytest.mark.parametrize("flows", [[], [None], ["a", None]])
def test_a_limit_to_nothing_is_refused(limited: Db, flows: list[Any]) -> None:
    refused = limited.refused("select pgflow.grant_access(%s, 'starter', %s::text[])", ROLE, flows)
    assert refused.sqlstate == "22023"


def test_who_may_act_as_the_owner_cannot_be_limited(limited: Db) -> None:
    refused = limited.refused("select pgflow.grant_access(current_user::name, 'starter', array['a'])")
    assert (refused.sqlstate, "cannot be limited" in refused.message) == ("22023", True)


def test_it_holds_for_who_logs_in_as_it_does_for_who_is_set(dsn: str) -> None:
    name = f"pgflow_login_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dsn, autocommit=True) as admin:
        for slug in ("a", "b"):
            flow(Db(admin), slug, "s")
        admin.execute(f"create role {name} login".encode())
        admin.execute("select pgflow.grant_access(%s, 'starter', array['a'])", (name,))
        try:
            with psycopg.connect(make_conninfo(dsn, user=name), autocommit=True) as conn:
                conn.execute("select pgflow.start_run('a', '{}')")
                for before in ("select 1", "set role none", f"set role {name}"):
                    conn.execute(before.encode())
                    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="denied for flow b"):
                        conn.execute("select pgflow.start_run('b', '{}')")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute("delete from pgflow.flow_grants")
                worker_count = conn.execute("select count(*) from pgflow.recent_runs()").fetchone()
                assert worker_count == (1,)
        finally:
            admin.execute(f"drop owned by {name}; drop role {name}".encode())


def test_a_worker_of_one_flow_cannot_take_over_the_registration_of_another_s(limited: Db) -> None:
    worker(limited, "b", THEIRS)
    limited.do("update pgflow.workers set stopped_at = now() where worker_id = %s", THEIRS)
    before = everything(limited, run_of(limited, "b"))
    with acting(limited):
        limited.do("select pgflow.register_worker(%s, 'a', 'w', '1 day')", THEIRS)
    assert everything(limited, run_of(limited, "b")) == before


PARK = "select * from pgflow.report_parked(%s::uuid[], %s::uuid[], %s::uuid[], %s::int[])"


def test_what_others_hold_back_is_not_told_invented_or_forgotten_by_who_may_not_use_the_flow(
    limited: Db,
) -> None:
    runs = [run_of(limited, slug) for slug in ("a", "b")]
    for worker_id, slug in ((WORKER, "a"), (THEIRS, "b")):
        limited.do("select pgflow.register_worker(%s, %s, 'w', '1 hour')", worker_id, slug)
    limited.do(PARK, [THEIRS], [THEIRS], [runs[1]], [2])
    before = everything(limited, runs[1])
    with acting(limited):
        for run_ids in (runs, runs[::-1]):
            told = limited.rows(PARK, [WORKER, THEIRS], [WORKER] * 2, run_ids, [1, 1])
            assert [(row.run_id, row.tasks_left) for row in told] == [(runs[0], 3)]
        assert limited.rows(PARK, [THEIRS], [], [], []) == []
        assert limited.rows(PARK, [THEIRS], [THEIRS], [runs[0]], [3]) == []
        assert limited.rows(PARK, None, None, None, None) == []
    assert everything(limited, runs[1]) == before
    assert [row.tasks_left for row in limited.rows(PARK, [THEIRS], [THEIRS], [runs[1]], [1])] == [3]
