"""Pausing and resuming flows and runs (ours): nothing new of them is claimed, by whatever way."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .helpers import (
    WORKER,
    Db,
    claim,
    complete,
    fail,
    flow,
    make_visible,
    map_step,
    run_row,
    start,
    step,
    tasks,
)
from .range_work import (
    OTHER,
    claim_work,
    complete_parts,
    dies,
    fail_items,
    finish,
    hired,
    mapped,
    parts_of,
    ranges_flow,
    release,
)


def pause(db: Db, what: uuid.UUID | str, reason: str | None = None) -> bool:
    kind = "run" if isinstance(what, uuid.UUID) else "flow"
    changed: bool = db.value(f"select pgflow.pause_{kind}(%s, %s)", what, reason)
    return changed


def resume(db: Db, what: uuid.UUID | str) -> bool:
    kind = "run" if isinstance(what, uuid.UUID) else "flow"
    changed: bool = db.value(f"select pgflow.resume_{kind}(%s)", what)
    return changed


def in_tasks(db: Db, *inputs: Any, slug: str = "f") -> list[uuid.UUID]:
    """Runs of a flow of a map in tasks, one for each input, and two workers."""
    flow(db, slug, map_step("m"), step("z", "m"))
    for worker in (WORKER, OTHER):
        hired(db, slug, worker)
    return [start(db, slug, value) for value in inputs]


def of_runs(rows: list[Any]) -> dict[uuid.UUID, int]:
    found: dict[uuid.UUID, int] = {}
    for row in rows:
        found[row.run_id] = found.get(row.run_id, 0) + 1
    return found


@pytest.mark.parametrize("paused", ["flow", "run"])
def test_nothing_of_a_paused_flow_or_run_is_claimed_until_it_is_resumed(db: Db, paused: str) -> None:
    [run] = in_tasks(db, [1, 2, 3])
    other = mapped(db, 3, slug="g")
    for slug, run_id in (("f", run), ("g", other)):
        what = slug if paused == "flow" else run_id
        assert pause(db, what, "why")
        assert not pause(db, what)
        assert claim_work(db, slug=slug) == ([], [], [])
        for claims in ("claim_tasks", "claim_tasks_without_input"):
            assert db.rows(f"select * from pgflow.{claims}(%s, %s, 9)", slug, WORKER) == []
        assert resume(db, what)
        assert not resume(db, what)
        claimed = claim_work(db, slug=slug)
        assert len(claimed.tasks) + claimed.items == 3


def test_one_paused_run_among_others_is_passed_over(db: Db) -> None:
    first, second, third = in_tasks(db, [1, 2], [3, 4], [5, 6])
    db.do("insert into pgflow.run_priorities values (%s, 5)", first)
    pause(db, first)
    assert of_runs(claim_work(db).tasks) == {second: 2, third: 2}
    resume(db, first)
    assert of_runs(claim_work(db).tasks) == {first: 2}
    ranges_flow(db, "g", map_step("m"))
    hired(db, "g")
    one, two = start(db, "g", [1, 2]), start(db, "g", [3, 4])
    pause(db, one)
    assert {lease.run for lease in claim_work(db, slug="g").leases} == {two}


def test_what_reads_the_queue_itself_starts_nothing_of_what_is_paused(db: Db) -> None:
    first, second = in_tasks(db, [1, 2], [3, 4])
    pause(db, first)
    assert of_runs(claim(db, "f", 9)) == {second: 2}
    pause(db, "f")
    make_visible(db, "f")
    assert claim(db, "f", 9) == []
    resume(db, "f")
    assert claim(db, "f", 9) == []  # the messages were read, and come back by themselves
    make_visible(db, "f")
    assert claim(db, "f", 9) == []
    resume(db, first)
    make_visible(db, "f")
    assert of_runs(claim(db, "f", 9)) == {first: 2}


def test_what_runs_ends_and_is_recorded_and_what_follows_waits(db: Db) -> None:
    [run] = in_tasks(db, [1, 2])
    claim_work(db)
    pause(db, run)
    for index in (0, 1):
        complete(db, run, "m", index, index)
    assert claim_work(db).tasks == []
    resume(db, run)
    assert [t.step_slug for t in claim_work(db).tasks] == ["z"]
    other = mapped(db, 4, slug="g")
    lease = claim_work(db, 2, slug="g").leases[0]
    pause(db, "g")
    assert finish(db, lease) == 2
    assert claim_work(db, slug="g").leases == []
    resume(db, "g")
    last = claim_work(db, slug="g").leases[0]
    pause(db, other)
    finish(db, last)
    assert run_row(db, other).status == "completed"


def test_retries_that_come_due_releases_and_takeovers_wait(db: Db) -> None:
    [run] = in_tasks(db, [1])
    claim_work(db)
    pause(db, run)
    fail(db, run, "m")
    make_visible(db, "f")
    assert claim_work(db).tasks == []
    resume(db, run)
    assert [t.attempt for t in claim_work(db).tasks] == [2]
    other = mapped(db, 9, slug="g")
    mine, theirs = claim_work(db, 3, slug="g").leases[0], claim_work(db, 3, OTHER, slug="g").leases[0]
    pause(db, "g")
    fail_items(db, other, [0])
    release(db, other, [(mine.lease_no, 1, 2)])
    assert dies(db, OTHER) == 3
    make_visible(db, "g")
    assert claim_work(db, slug="g") == ([], [], [])
    resume(db, "g")
    assert claim_work(db, slug="g").items == 8
    assert theirs.items == 3


@pytest.mark.parametrize("condemned", [None, True])
def test_tasks_that_workers_died_with_wait_too(db: Db, condemned: bool | None) -> None:
    first, second = in_tasks(db, [1], [2])
    db.do("update pgflow.step_tasks set worker_deaths = 3, condemned = %s", condemned)
    pause(db, first)
    assert of_runs(claim_work(db).tasks) == {second: 1}
    assert claim_work(db, worker=OTHER).tasks == []
    resume(db, first)
    assert of_runs(claim_work(db, worker=OTHER).tasks) == {first: 1}


def test_starts_are_accepted_and_a_pause_of_the_flow_holds_for_later_runs(db: Db) -> None:
    in_tasks(db, [1])
    pause(db, "f")
    late = start(db, "f", [2])
    assert claim_work(db).tasks == []
    resume(db, "f")
    assert late in of_runs(claim_work(db).tasks)


def test_pauses_of_a_flow_and_of_its_runs_are_two_things(db: Db) -> None:
    first, second = in_tasks(db, [1], [2])
    assert [pause(db, "f"), pause(db, first, "look at it")] == [True, True]
    listed = db.rows("select * from pgflow.list_pauses()")
    assert [(p.flow_slug, p.run_id, p.reason) for p in listed] == [
        ("f", None, None),
        ("f", first, "look at it"),
    ]
    resume(db, "f")
    assert of_runs(claim_work(db).tasks) == {second: 1}


def test_a_pause_ends_with_its_run_and_its_flow(db: Db) -> None:
    first, second = in_tasks(db, [1], [2])
    pause(db, first)
    db.do("select pgflow.cancel_run(%s)", first)
    assert db.column("select run_id from pgflow.list_pauses()") == []
    db.do("select pgflow.retry_failed_tasks(%s)", first)
    assert set(of_runs(claim_work(db).tasks)) == {first, second}
    pause(db, first)
    pause(db, "f")
    db.do("select pgflow.delete_flow_and_data('f')")
    assert db.column("select run_id from pgflow.list_pauses()") == []


def test_what_cannot_be_paused_is_refused(db: Db) -> None:
    [run] = in_tasks(db, [1])
    db.do("select pgflow.cancel_run(%s)", run)
    refusal = db.refused("select pgflow.pause_run(%s)", run)
    assert (refusal.sqlstate, refusal.message) == (
        "PF004",
        f"Run {run} is failed, only a run that goes on can be paused",
    )
    assert not resume(db, run)
    for verb in ("pause", "resume"):
        assert db.refused(f"select pgflow.{verb}_run(%s)", uuid.UUID(int=1)).sqlstate == "PF003"
        assert db.refused(f"select pgflow.{verb}_run(null)").sqlstate == "PF003"
        refusal = db.refused(f"select pgflow.{verb}_flow('nope')")
        assert (refusal.sqlstate, refusal.message) == ("PF016", 'There is no flow "nope" in this database')
        assert db.refused(f"select pgflow.{verb}_flow(null)").sqlstate == "PF016"


def test_a_reason_is_kept_short(db: Db) -> None:
    in_tasks(db, [1])
    pause(db, "f", "x" * 100_000)
    assert db.value("select length(reason) from pgflow.list_pauses()") == 1000


def test_workers_hear_of_a_pause_and_of_its_end(alone: Db) -> None:
    [run] = in_tasks(alone, [1])
    heard = []
    alone.conn.add_notify_handler(lambda n: heard.append((n.channel, n.payload)))
    for channel in ("pgflow_paused", "pgflow_work"):
        alone.do(f"listen {channel}")
    for what in (run, "f"):
        for _ in range(2):
            pause(alone, what)
        for _ in range(2):
            resume(alone, what)
    alone.do("select 1")
    assert heard == [("pgflow_paused", "f"), ("pgflow_work", "f")] * 2


def test_a_long_queue_of_a_paused_run_does_not_hold_up_another(db: Db) -> None:
    paused, other = in_tasks(db, list(range(20_000)), [1])
    pause(db, paused)
    assert of_runs(claim_work(db).tasks) == {other: 1}
    assert claim_work(db).tasks == []
    assert len([t for t in tasks(db, paused) if t.status == "queued"]) == 20_000


def test_parts_of_a_lease_stay_held_while_its_run_is_paused(db: Db) -> None:
    run = mapped(db, 4)
    [lease] = claim_work(db).leases
    pause(db, run)
    assert complete_parts(db, run, [(lease.lease_no, 0, 2)]).accepted == 2
    assert claim_work(db, worker=OTHER).items == 0
    resume(db, run)
    assert complete_parts(db, run, [(p[0], 2, 2) for p in parts_of(lease)]).accepted == 2
    assert run_row(db, run).status == "completed"


def passes(db: Db) -> None:
    """As if the time of all pauses that have one were over."""
    db.do("update pgflow.pauses set until = clock_timestamp() where until is not null")


@pytest.mark.parametrize("paused", ["flow", "run"])
def test_a_pause_whose_time_is_over_is_none(db: Db, paused: str) -> None:
    [run] = in_tasks(db, [1, 2, 3])
    other = mapped(db, 3, slug="g")
    for slug, run_id in (("f", run), ("g", other)):
        what = slug if paused == "flow" else run_id
        assert db.value(
            f"select pgflow.pause_{paused}(%s, null, clock_timestamp() + interval '1 hour')", what
        )
        assert run_id not in of_runs(claim_work(db, slug=slug).tasks)
        marks = db.row("select is_paused, paused_until > now() as later from pgflow.run_report(%s)", run_id)
        assert (marks.is_paused, marks.later) == (True, True)
        make_visible(db, slug)
        if paused == "flow":
            assert claim(db, slug, 9) == []
            assert db.value("select is_paused from pgflow.list_flows() where flow = %s", slug)
        passes(db)
        make_visible(db, slug)
        assert db.rows("select * from pgflow.list_pauses()") == []
        marks = db.row("select is_paused, paused_until from pgflow.run_report(%s)", run_id)
        assert (marks.is_paused, marks.paused_until) == (False, None)
        assert not db.value("select bool_or(is_paused) from pgflow.list_flows()")
        assert not resume(db, what)
        assert pause(db, what)
        passes(db)
        assert resume(db, what)
        claimed = claim_work(db, slug=slug)
        assert len(claimed.tasks) + claimed.items == 3


def test_what_reads_the_queue_itself_heeds_the_time_of_a_pause(db: Db) -> None:
    first, second = in_tasks(db, [1, 2], [3, 4])
    db.do("select pgflow.pause_run(%s, null, clock_timestamp() + interval '1 hour')", first)
    assert of_runs(claim(db, "f", 9)) == {second: 2}
    passes(db)
    make_visible(db, "f")
    assert of_runs(claim(db, "f", 9)) == {first: 2}


def test_the_last_word_about_the_end_of_a_pause_holds(db: Db) -> None:
    [run] = in_tasks(db, [1])
    for kind, what in (("run", run), ("flow", "f")):
        call = f"select pgflow.pause_{kind}(%s, %s, now() + %s::interval)"
        assert db.value(call, what, "a", "1 hour")
        assert not db.value(call, what, "b", "1 hour")
        assert db.value(call, what, "c", "2 hours")
        assert db.value(call, what, "d", None)
        assert not pause(db, what)
        assert [(p.reason, p.until) for p in db.rows("select * from pgflow.list_pauses()")] == [("d", None)]
        refusal = db.refused(call, what, "e", "-1 second")
        assert (refusal.sqlstate, "which has passed" in refusal.message) == ("22023", True)
        resume(db, what)
    db.do("select pgflow.pause_run(%s, null, now() + interval '1 hour')", run)
    pause(db, "f")
    marks = db.row("select is_paused, paused_until from pgflow.run_report(%s)", run)
    assert (marks.is_paused, marks.paused_until) == (True, None)


def later(db: Db, text: str = "now() + interval '1 hour'") -> None:
    db.do(f"select set_config('pgflow.start_after', ({text})::text, true)")


def test_a_run_that_is_started_later_is_held_by_its_start_alone(db: Db) -> None:
    in_tasks(db)
    later(db)
    held = start(db, "f", [1, 2])
    later(db, "''")
    free = start(db, "f", [3])
    assert of_runs(claim_work(db).tasks) == {free: 1}
    assert db.value("select paused_until - now() from pgflow.run_report(%s)", held).total_seconds() == 3600
    passes(db)
    assert of_runs(claim_work(db).tasks) == {held: 2}
    later(db, "now() - interval '1 s'")
    past = start(db, "f", [4])
    assert of_runs(claim_work(db).tasks) == {past: 1}
    later(db, "'tomorrow or so'")
    assert db.refused("select pgflow.start_flow('f', '[1]')").sqlstate == "22007"


def test_a_run_that_starts_later_is_resumed_at_once_and_nothing_stays_of_it(db: Db) -> None:
    in_tasks(db)
    later(db)
    first, second = start(db, "f", [1]), start(db, "f", [2])
    assert resume(db, first)
    assert of_runs(claim_work(db).tasks) == {first: 1}
    db.do("select pgflow.cancel_run(%s)", second)
    assert db.rows("select * from pgflow.pauses") == []
