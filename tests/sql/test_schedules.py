"""Schedules in the database: what is due is started once, by whoever comes, by its owner's rights."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from .helpers import CRON, Db, Row, flow, map_step

NOW = datetime.now(UTC).replace(second=0, microsecond=0)


FIRE = "select * from pgflow.fire_schedules()"


@pytest.fixture(autouse=True)
def _now() -> None:
    global NOW
    NOW = datetime.now(UTC).replace(second=0, microsecond=0)


def schedule(db: Db, slug: str = "f", name: str = "n", **options: Any) -> bool:
    """Set one that is due every hour from the next full one on."""
    given = {"cron": "0 * * * *", "time_zone": "UTC", "input": {}, **options}
    times = given.pop("times", [NOW + timedelta(hours=i + 1) for i in range(4)])
    texts = [f"local {i}" for i in range(len(times))]
    names = ", ".join(f"{key} => %s" for key in given)
    query = f"select pgflow.set_schedule(%s, %s, {names}, times => %s::timestamptz[], local_times => %s)"
    found: bool = db.value(query, slug, name, *given.values(), times, texts)
    return found


def due(db: Db, *minutes: int, name: str = "n", asked: bool = False) -> None:
    """Plan times of so many minutes ago, the state that any server comes to while nobody fires."""
    for ago in minutes:
        db.do(
            "insert into pgflow.schedule_times (schedule_id, due_at, local_time, asked_at) "
            "select schedule_id, %s, %s, %s from pgflow.schedules where name = %s",
            *(NOW - timedelta(minutes=ago), f"{ago} ago", NOW if asked else None, name),
        )


def states(db: Db, name: str = "n") -> dict[int, str]:
    """What became of the times that are due, by how many minutes ago they were."""
    rows = db.rows(
        "select due_at, state from pgflow.schedule_times t join pgflow.schedules s using (schedule_id) "
        "where s.name = %s and due_at <= clock_timestamp() order by due_at",
        name,
    )
    return {round((NOW - row.due_at) / timedelta(minutes=1)): row.state for row in rows}


def runs(db: Db, slug: str = "f") -> int:
    count: int = db.value("select count(*) from pgflow.runs where flow_slug = %s", slug)
    return count


@contextmanager
def acting(db: Db, role: str) -> Iterator[None]:
    db.do(f"set local role {role}")
    yield
    db.do("reset role")


def test_what_is_due_is_started_and_named_by_a_key(db: Db) -> None:
    flow(db, "f", "s")
    assert schedule(db, input={"a": 1}, due_as="at", priority=7) is True
    due(db, 3)
    (fired,) = db.rows(FIRE)
    assert (fired.flow_slug, fired.name, fired.due_at, fired.error) == (
        *("f", "n", NOW - timedelta(minutes=3)),
        None,
    )
    run = db.row("select run_id, input, status from pgflow.runs")
    assert (run.run_id, run.input, run.status) == (fired.run_id, {"a": 1, "at": "3 ago"}, "started")
    key = f"schedule:n@{NOW - timedelta(minutes=3):%Y-%m-%dT%H:%MZ}"
    assert db.value("select key from pgflow.run_keys where run_id = %s", run.run_id) == key
    assert db.value("select priority from pgflow.run_priorities") == 7
    assert db.column("select tag from pgflow.run_tags") == ["schedule:n"]
    assert db.rows(FIRE) == []
    assert states(db) == {3: "started"}


@pytest.mark.parametrize(
    ("missed", "minutes", "started"),
    [
        ("once", (90, 60, 30), {30}),
        ("once", (90,), {90}),
        ("skip", (90, 60, 30), set()),
        ("skip", (90, 60, 2), {2}),
        ("all", (90, 60, 30), {90, 60, 30}),
        ("all", tuple(range(1, 121)), set(range(1, 101))),
    ],
)
def test_times_that_were_missed_go_as_the_schedule_says(
    db: Db, missed: str, minutes: tuple[int, ...], started: set[int]
) -> None:
    flow(db, "f", "s")
    schedule(db, missed=missed)
    due(db, *minutes)
    order = [row.due_at for row in iter_fired(db)]
    assert order == sorted(order)
    found = states(db)
    assert {ago for ago, state in found.items() if state == "started"} == started
    assert {state for ago, state in found.items() if ago not in started} <= {"skipped"}
    assert runs(db) == len(started)


def iter_fired(db: Db) -> list[Row]:
    found: list[Row] = []
    while fired := db.rows(FIRE):
        found += fired
    return found


def test_what_cannot_start_is_told_at_the_schedule_and_not_tried_again(db: Db) -> None:
    flow(db, "f", map_step("m"))
    schedule(db, input={})
    schedule(db, "gone", "g")
    due(db, 1)
    due(db, 1, name="g")
    errors = {row.flow_slug: row.error for row in db.rows(FIRE)}
    assert errors == {
        "f": "Flow f has root map steps but input is not an array (got object)",
        "gone": 'There is no flow "gone" in this database',
    }
    assert db.rows(FIRE) == []
    told = {row.flow_slug: row for row in db.rows("select * from pgflow.schedules()")}
    assert (told["f"].last_state, told["f"].last_error) == ("failed", errors["f"])
    assert told["gone"].last_error == errors["gone"]
    assert db.value("select count(*) from pgflow.run_keys") == 0


def test_one_that_cannot_start_does_not_keep_the_others(db: Db) -> None:
    flow(db, "f", "s")
    schedule(db, "gone", "a")
    schedule(db, "f", "b")
    due(db, 9, name="a")
    due(db, 1, name="b")
    assert [(row.name, row.error is None) for row in db.rows(FIRE)] == [("a", False), ("b", True)]


def test_a_flow_that_is_made_anew_keeps_its_schedule(db: Db) -> None:
    flow(db, "f", "s")
    schedule(db)
    db.do("select pgflow.delete_flow_and_data('f')")
    flow(db, "f", "other")
    due(db, 1)
    assert [row.error for row in db.rows(FIRE)] == [None]


def test_a_time_whose_history_is_gone_is_not_started_twice(db: Db) -> None:
    flow(db, "f", "s")
    schedule(db)
    due(db, 60)
    (first,) = db.rows(FIRE)
    db.do("delete from pgflow.schedule_times where state = 'started'")
    asked = db.row(
        "select * from pgflow.backfill_schedule('f', 'n', array[%s]::timestamptz[], '{x}')", first.due_at
    )
    assert (asked.asked, asked.known) == (1, 0)
    (again,) = db.rows(FIRE)
    assert again.run_id == first.run_id
    assert runs(db) == 1
    db.do("update pgflow.runs set input = '[]'")  # the same if somebody took its key for something else
    db.do("delete from pgflow.schedule_times where state = 'started'")
    due(db, 60)
    assert "was started with another input" in db.row(FIRE).error


def test_backfill_starts_what_was_not_started(db: Db) -> None:
    flow(db, "f", "s")
    schedule(db)
    due(db, 90, 60, 30)
    db.do(FIRE)
    ask = "select * from pgflow.backfill_schedule('f', 'n', %s::timestamptz[], %s)"
    minutes = [120, 90, 60, 30, -60]
    times = [NOW - timedelta(minutes=ago) for ago in minutes]
    asked = db.row(ask, times, [str(ago) for ago in minutes])
    assert (asked.asked, asked.known) == (3, 2)  # one was started, one is yet to come
    assert db.value("select asked from pgflow.schedules()") == 3
    assert len(iter_fired(db)) == 3
    assert states(db) == dict.fromkeys((120, 90, 60, 30), "started")
    assert runs(db) == 4
    assert db.row(ask, times, ["x"] * 5).asked == 0
    assert db.refused(ask, [NOW] * 1001, ["x"] * 1001).sqlstate == "22023"


def test_backfill_goes_after_what_is_due_now(db: Db) -> None:
    flow(db, "f", "s")
    schedule(db)
    due(db, 90, 80, asked=True)
    due(db, 1)
    schedule(db, name="other")
    due(db, 2, name="other")
    assert [row.due_at for row in db.rows("select * from pgflow.fire_schedules(2)")] == [
        NOW - timedelta(minutes=2), NOW - timedelta(minutes=1)
    ]  # fmt: skip


def test_nothing_of_a_paused_schedule_is_started_and_what_it_missed_is_skipped(db: Db) -> None:
    flow(db, "f", "s")
    schedule(db, missed="all")
    assert db.value("select pgflow.pause_schedule('f', 'n')") is True
    assert db.value("select pgflow.pause_schedule('f', 'n')") is False
    due(db, 30, 2)
    assert db.rows(FIRE) == []
    assert db.value("select seconds from pgflow.schedules_wait()") is None
    refused = db.refused("select pgflow.backfill_schedule('f', 'n', array[now()], '{x}')")
    assert (refused.sqlstate, refused.message) == ("PF009", 'Schedule "n" of flow "f" is paused')
    assert db.value("select pgflow.resume_schedule('f', 'n')") is True
    assert db.value("select pgflow.resume_schedule('f', 'n')") is False
    assert db.rows(FIRE) == []
    assert states(db) == {30: "skipped", 2: "skipped"}
    assert db.value("select next_at from pgflow.schedules()") == NOW + timedelta(hours=1)


def test_another_cron_line_replaces_what_was_planned_and_no_more(db: Db) -> None:
    flow(db, "f", "s")
    schedule(db)
    due(db, 60)
    db.do(FIRE)
    soon = [NOW + timedelta(minutes=7)]
    assert schedule(db, cron="7 * * * *", times=soon) is False
    assert db.column("select due_at from pgflow.schedule_times where state = 'planned'") == soon
    assert states(db) == {60: "started"}
    row = db.row("select revision, plan_again_at, planned_until from pgflow.schedules")
    assert (row.revision, row.plan_again_at, row.planned_until) == (2, soon[0], soon[0])


def test_times_are_planned_once_and_not_for_what_has_changed_meanwhile(db: Db) -> None:
    flow(db, "f", "s")
    schedule(db, times=[])
    db.do("update pgflow.schedules set plan_again_at = '-infinity'")
    assert db.value("select is_to_plan from pgflow.schedules_wait()") is True
    plan = db.row("select * from pgflow.schedules_to_plan()")
    keep = "select pgflow.plan_schedule(%s, %s, %s, %s::timestamptz[], %s)"
    times = [plan.after - timedelta(minutes=1), *(NOW + timedelta(minutes=i) for i in range(60, 70))]
    texts = ["x"] * 11
    times[0] = times[0].replace(second=0, microsecond=0)
    assert db.value(keep, plan.schedule_id, plan.revision + 1, plan.after, times, texts) is False
    assert db.value(keep, plan.schedule_id, plan.revision, plan.after, times, texts) is True
    assert db.value(keep, plan.schedule_id, plan.revision, plan.after, times, texts) is False
    assert db.column("select due_at from pgflow.schedule_times order by 1") == times[1:]
    row = db.row("select planned_until, plan_again_at from pgflow.schedules")
    assert (row.planned_until, row.plan_again_at) == (times[10], times[5])
    assert db.value("select is_to_plan from pgflow.schedules_wait()") is False
    assert db.refused(keep, plan.schedule_id, 1, times[10], [NOW] * 401, ["x"] * 401).sqlstate == "22023"


def test_why_no_times_can_be_computed_is_shown(db: Db) -> None:
    flow(db, "f", "s")
    schedule(db, cron="whatever", times=[])
    plan = db.row("select schedule_id, planned_until from pgflow.schedules")
    keep = "select pgflow.plan_schedule(%s, 1, %s, '{}', '{}', 'this is not a cron line')"
    assert db.value(keep, plan.schedule_id, plan.planned_until) is False
    assert db.value("select problem from pgflow.schedules()") == "this is not a cron line"
    wait = db.value("select plan_again_at - now() from pgflow.schedules")
    assert timedelta(minutes=59) < wait < timedelta(minutes=61)
    schedule(db)
    assert db.value("select problem from pgflow.schedules()") is None


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"name": ""}, "name_is_a_name"),
        ({"name": "a/b"}, "name_is_a_name"),
        ({"name": "a\nb"}, "name_is_a_name"),
        ({"name": "x" * 101}, "name_is_a_name"),
        ({"input": {"a": "x" * (1 << 20)}}, "input_is_small"),
        ({"missed": "never"}, "missed_is_valid"),
        ({"due_as": ""}, "due_as_is_a_member"),
        ({"times": [NOW + timedelta(days=1, seconds=30)]}, "due_at_is_a_minute"),
        ({"cron": "x" * 201}, "cron_is_short"),
    ],
)
def test_what_no_schedule_can_be_is_refused(db: Db, change: dict[str, Any], constraint: str) -> None:
    flow(db, "f", "s")
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        schedule(db, **change)
    assert refused.value.diag.constraint_name == constraint


def test_the_history_is_bounded(db: Db) -> None:
    flow(db, "f", "s")
    schedule(db)
    db.do(
        "insert into pgflow.schedule_times (schedule_id, due_at, local_time, state, handled_at) "
        "select schedule_id, %s::timestamptz - make_interval(mins => i), 'x', 'skipped', "
        "%s::timestamptz - make_interval(mins => i) from pgflow.schedules, generate_series(10, 1209) i",
        *(NOW, NOW),
    )
    due(db, 1)
    assert len(db.rows(FIRE)) == 1
    assert db.value("select count(*) from pgflow.schedule_times where state <> 'planned'") == 1000
    assert states(db)[1] == "started"


# -- rights ------------------------------------------------------------------------------------------------


@pytest.fixture
def roles(db: Db) -> Db:
    """Flows f and b; starter anna of f, otto, operator of all, and wim, worker of b only."""
    flow(db, "f", "s")
    flow(db, "b", "s")
    for role in ("anna", "berta", "otto", "wim"):
        db.do(f"create role {role}")
    for role in ("anna", "berta"):
        db.do("select pgflow.grant_access(%s, 'starter', array['f'])", role)
    db.do("select pgflow.grant_access('otto', 'operator')")
    db.do("select pgflow.grant_access('wim', 'worker', array['b'])")
    return db


def test_who_may_not_use_a_flow_can_neither_schedule_it_nor_see_its_schedules(roles: Db) -> None:
    with acting(roles, "anna"):
        assert schedule(roles, "f", "hers")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="flow b"), roles.savepoint():
            schedule(roles, "b", "hers")
        assert roles.column("select name from pgflow.schedules()") == ["hers"]
    with acting(roles, "wim"):
        assert roles.rows("select * from pgflow.schedules()") == []
        assert roles.column("select pgflow.schedule_input('f', 'hers')") == [None]
        assert roles.rows("select * from pgflow.schedule_times('f', 'hers', true)") == []
        for call in ("pause_schedule('f', 'hers')", "delete_schedule('f', 'hers')"):
            assert roles.refused(f"select pgflow.{call}").sqlstate == "42501"


def test_a_schedule_is_changed_by_its_owner_and_by_operators_who_own_it_then(roles: Db) -> None:
    with acting(roles, "anna"):
        schedule(roles, "f", "hers", input={"by": "anna"})
    calls = ("pause_schedule('f', 'hers')", "resume_schedule('f', 'hers')", "delete_schedule('f', 'hers')")
    with acting(roles, "berta"):
        for call in (*calls, "backfill_schedule('f', 'hers', '{}', '{}')"):
            refused = roles.refused(f"select pgflow.{call}")
            assert (refused.sqlstate, refused.message) == (
                "42501",
                "permission denied for schedule hers of flow f",
            )
        with pytest.raises(psycopg.errors.InsufficientPrivilege), roles.savepoint():
            schedule(roles, "f", "hers", input={"by": "berta"})
    assert roles.value("select owner from pgflow.schedules()") == "anna"
    with acting(roles, "otto"):
        assert roles.value("select pgflow.pause_schedule('f', 'hers')") is True
        assert roles.value("select owner from pgflow.schedules()") == "anna"
        schedule(roles, "f", "hers", input={"by": "otto"})
    assert roles.value("select owner from pgflow.schedules()") == "otto"
    with acting(roles, "anna"):
        assert roles.refused("select pgflow.delete_schedule('f', 'hers')").sqlstate == "42501"


def test_runs_are_started_with_the_rights_that_the_owner_has_then(roles: Db) -> None:
    for role, name in (("anna", "a"), ("berta", "b"), ("otto", "o")):
        with acting(roles, role):
            schedule(roles, "f", name)
        due(roles, 1, name=name)
    roles.do("delete from pgflow.flow_grants where role_id = 'anna'::regrole")
    roles.do("select pgflow.grant_access('anna', 'starter', array['b'])")
    roles.do("revoke all on all routines in schema pgflow from berta")
    errors = {row.name: row.error for row in roles.rows(FIRE)}
    assert errors == {
        "a": "Role anna, which owns the schedule, may not use flow f",
        "b": "Role berta, which owns the schedule, may not schedule runs",
        "o": None,
    }


def test_a_role_that_is_gone_starts_nothing(roles: Db) -> None:
    with acting(roles, "anna"):
        schedule(roles, "f", "n")
    due(roles, 1)
    roles.do("delete from pgflow.flow_grants where role_id = 'anna'::regrole")
    roles.do("drop owned by anna")
    roles.do("drop role anna")
    assert roles.row(FIRE).error == "The role that owns the schedule is gone"
    assert runs(roles) == 0


def test_a_worker_of_some_flows_starts_what_is_due_of_these(roles: Db) -> None:
    schedule(roles, "f", "n")
    schedule(roles, "b", "m")
    due(roles, 1, name="n")
    due(roles, 1, name="m")
    roles.do("update pgflow.schedules set plan_again_at = '-infinity'")
    with acting(roles, "wim"):
        assert [row.name for row in roles.rows(FIRE)] == ["m"]
        assert roles.rows(FIRE) == []
        plans = roles.rows("select * from pgflow.schedules_to_plan()")
        assert len(plans) == 1
        assert roles.row("select * from pgflow.schedules_wait()").seconds > 0
    theirs = roles.row("select schedule_id, planned_until from pgflow.schedules where name = 'n'")
    with acting(roles, "wim"):
        refused = roles.refused(
            "select pgflow.plan_schedule(%s, 1, %s, '{}', '{}')", theirs.schedule_id, theirs.planned_until
        )
    assert refused.sqlstate == "42501"


# -- several at once ---------------------------------------------------------------------------------------


def test_whoever_comes_while_another_starts_a_schedule_leaves_it_and_finds_nothing_after(
    alone: Db, beside: Db
) -> None:
    flow(alone, "f", "s")
    schedule(alone, missed="all")
    due(alone, 3, 2, 1)
    assert len(beside.rows(FIRE)) == 3  # in a transaction that is open
    assert alone.rows(FIRE) == []
    assert runs(alone) == 0
    beside.conn.rollback()  # it was killed
    assert states(alone) == {3: "planned", 2: "planned", 1: "planned"}
    assert len(alone.rows(FIRE)) == 3
    assert runs(alone) == 3


def test_who_keeps_the_key_of_a_time_keeps_no_other_schedule(alone: Db, beside: Db) -> None:
    for slug in "fg":
        flow(alone, slug, "s")
        schedule(alone, slug, slug)
        due(alone, 2 if slug == "f" else 1, name=slug)
    key = f"schedule:f@{NOW - timedelta(minutes=2):%Y-%m-%dT%H:%MZ}"
    beside.do("select pgflow.start_keyed_run('f', %s, '{}')", key)  # in a transaction that is open
    alone.do("set lock_timeout = 0")
    alone.do("set statement_timeout = '5s'")
    assert [row.name for row in alone.rows(FIRE)] == ["g"]
    assert states(alone, "f") == {2: "planned"}
    beside.conn.rollback()
    assert [(row.name, row.error) for row in alone.rows(FIRE)] == [("f", None)]


def test_many_at_once_start_each_time_once(alone: Db, dsn: str) -> None:
    flow(alone, "f", "s")
    for name in "abc":
        schedule(alone, name=name, missed="all")
        due(alone, *range(1, 31), name=name)
    barrier = threading.Barrier(4)
    found: list[tuple[str, datetime]] = []

    def work() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            barrier.wait()
            for _ in range(30):
                rows = Db(conn).rows("select * from pgflow.fire_schedules(5)")
                found.extend((row.name, row.due_at) for row in rows)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == len(set(found)) == runs(alone) == 90


def test_a_transaction_with_an_older_snapshot_starts_nothing_again(alone: Db, dsn: str) -> None:
    flow(alone, "f", "s")
    schedule(alone)
    due(alone, 1)
    with psycopg.connect(dsn) as conn:
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select 1 from pgflow.schedules")
        assert len(alone.rows(FIRE)) == 1
        assert Db(conn).rows(FIRE) == []
    assert runs(alone) == 1
    assert states(alone) == {1: "started"}


# -- pg_cron -----------------------------------------------------------------------------------------------


def test_the_job_of_pg_cron_starts_what_is_due(supabase_db: Db) -> None:
    db = supabase_db
    text = db.value("select pgflow.setup_fire_schedules_cron()")
    job = db.row("select * from cron.job where jobname = 'pgflow_fire_schedules'")
    assert text == f'Scheduled pgflow_fire_schedules every "10 seconds" (job id {job.jobid})'
    assert job.schedule == "10 seconds"
    flow(db, "f", "s")
    schedule(db)
    due(db, 1)
    assert db.value(job.command) == 1
    assert states(db) == {1: "started"}


def test_without_pg_cron_the_set_up_of_the_job_says_so(plain_db: Db) -> None:
    assert "pg_cron" in plain_db.refused("select pgflow.setup_fire_schedules_cron()").message


def test_installing_where_pg_cron_is_has_it_start_what_is_due(empty_dsn: str) -> None:
    from pgflow_mp.db import schema

    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(CRON.encode())
        schema.install(conn)
        found = conn.execute("select schedule from cron.job where jobname = 'pgflow_fire_schedules'")
        assert found.fetchall() == [("10 seconds",)]


def test_lists_reach_their_rows_by_an_index(db: Db) -> None:
    """Of a hundred schedules with a thousand times each."""
    db.do(
        "insert into pgflow.schedules (flow_slug, name, cron, time_zone, input, owner_id) "
        "select 'f', 'n' || i, '* * * * *', 'UTC', '{}', 10 from generate_series(1, 100) i"
    )
    db.do(
        "insert into pgflow.schedule_times (schedule_id, due_at, local_time, state, handled_at) "
        "select schedule_id, %s::timestamptz + make_interval(hours => j), 'x', "
        "case when j <= 0 then 'skipped' else 'planned' end, case when j <= 0 then now() end "
        "from pgflow.schedules, generate_series(-899, 100) j",
        NOW,
    )
    read = "select seq_tup_read, idx_tup_fetch from pg_stat_xact_user_tables where relname = 'schedule_times'"
    for query, most in (("schedules()", 1000), ("schedules_wait()", 10), ("fire_schedules()", 10)):
        before = db.row(read)
        db.do(f"select * from pgflow.{query}")
        after = db.row(read)
        assert after.seq_tup_read == before.seq_tup_read, query
        assert after.idx_tup_fetch - before.idx_tup_fetch < most, query
