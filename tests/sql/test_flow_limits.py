"""Limits of flows and steps (ours): items at once and a second, over all workers, in both storages."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .helpers import WORKER, Db, Row, claim, complete, fail, flow, make_visible, map_step, start, step, tasks
from .range_work import (
    OTHER,
    Claimed,
    Lease,
    claim_work,
    complete_parts,
    dies,
    fail_items,
    finish,
    hired,
    ranges_flow,
    release,
)
from .test_pauses import of_runs

CLAIM = "select * from pgflow.claim_work(%s, %s, %s, %s, %s::bigint[], null, %s::text[], %s)"


def limit(db: Db, slug: str = "f", step: str | None = None, **limits: Any) -> None:
    names = "".join(f", {name} => %s" for name in limits)
    db.do(f"select pgflow.set_limit(%s, %s{names})", slug, step, *limits.values())


def claimed(
    db: Db,
    usable: int | None = 1000,
    *,
    slug: str = "f",
    worker: uuid.UUID = WORKER,
    qty: int = 100,
    items: int = 1000,
) -> tuple[Claimed, Row | None]:
    """What a claim got, and what it was told of limits."""
    rows = db.rows(CLAIM, slug, worker, qty, items, [], None, usable)
    told = rows.pop() if rows and rows[-1].run_id is None else None
    return (
        Claimed(
            [r for r in rows if r.items is None],
            [r for r in rows if r.items is not None and r.msg_id is not None],
            [
                Lease(r.run_id, r.step_slug, r.task_index, r.items, r.attempt, r.deaths)
                for r in rows
                if r.items is not None and r.msg_id is None
            ],
        ),
        told,
    )


def size(found: tuple[Claimed, Row | None]) -> int:
    return len(found[0].tasks) + found[0].items


def made(db: Db, storage: str, items: int = 100, slug: str = "f") -> uuid.UUID:
    """A run of a map m, and two workers."""
    if storage == "ranges":
        ranges_flow(db, slug, map_step("m"), base_delay=0)
    else:
        flow(db, slug, map_step("m"), base_delay=0)
    for worker in (WORKER, OTHER):
        hired(db, slug, worker)
    return start(db, slug, list(range(items)))


def complete_some(db: Db, run: uuid.UUID, found: Claimed, count: int) -> None:
    for task in found.tasks[:count]:
        complete(db, run, "m", 0, task.task_index)
    for lease in found.leases:
        part = min(count, lease.items)
        complete_parts(db, run, [(lease.lease_no, lease.first, part)])
        count -= part
        if count <= 0:
            return


BOTH = pytest.mark.parametrize("storage", ["tasks", "ranges"])
SCOPES = pytest.mark.parametrize("scope", [None, "m"])


# -- at once -------------------------------------------------------------------------------------------


@BOTH
@SCOPES
def test_no_more_than_so_many_are_held_at_once(db: Db, storage: str, scope: str | None) -> None:
    run = made(db, storage)
    limit(db, step=scope, at_once=7)
    first = claimed(db)
    assert (size(first), first[1] is not None) == (7, True)
    assert size(claimed(db, worker=OTHER)) == 0
    complete_some(db, run, first[0], 3)
    assert db.value("select held from pgflow.list_limits()") == 4
    assert size(claimed(db, worker=OTHER)) == 3
    assert size(claimed(db)) == 0


@BOTH
def test_a_worker_gets_what_it_can_work_on_and_the_others_the_rest(db: Db, storage: str) -> None:
    made(db, storage)
    limit(db, at_once=10)
    assert [size(claimed(db, 4)), size(claimed(db, 4, worker=OTHER)), size(claimed(db, 4))] == [4, 4, 2]
    assert size(claimed(db, 4)) == 0


@BOTH
def test_workers_of_before_get_shares(db: Db, storage: str) -> None:
    """They do not tell what they could work on, and would not understand what is told of limits."""
    made(db, storage)
    limit(db, at_once=10)
    got = []
    for worker in (WORKER, OTHER, WORKER, OTHER):
        found = claim_work(db, worker=worker)
        got.append(len(found.tasks) + found.items)
    assert got == [4, 2, 2, 1]  # a third of what is left, rounded up: there are two workers
    for _ in range(3):
        found = claim_work(db)
        got.append(len(found.tasks) + found.items)
    assert (sum(got), got[-1]) == (10, 0)


def test_what_reads_the_queue_itself_is_held_to_it(db: Db) -> None:
    run = made(db, "tasks", 20)
    limit(db, at_once=3)
    got = [len(claim(db, "f", 5)) for _ in range(3)]
    assert sum(got) == 3
    make_visible(db, "f")
    assert claim(db, "f", 20) == []
    for task in [t for t in tasks(db, run) if t.status == "started"]:
        complete(db, run, "m", 1, task.task_index)
    make_visible(db, "f")
    assert len(claim(db, "f", 20)) >= 1


@pytest.mark.parametrize("function", ["claim_tasks", "claim_tasks_without_input"])
def test_claims_of_tasks_alone_are_held_to_it(db: Db, function: str) -> None:
    made(db, "tasks", 20)
    limit(db, at_once=3)
    assert sum(len(db.rows(f"select * from pgflow.{function}('f', %s, 9)", WORKER)) for _ in range(9)) == 3


@BOTH
def test_what_comes_back_makes_room(db: Db, storage: str) -> None:
    run = made(db, storage)
    limit(db, at_once=4)
    mine = claimed(db, 2)[0]
    theirs = claimed(db, 2, worker=OTHER)
    assert size(theirs) == 2
    assert size(claimed(db)) == 0
    if storage == "ranges":
        lease = mine.leases[0]
        release(db, run, [(lease.lease_no, lease.first, lease.items)])
    else:
        db.do("select pgflow.release_tasks('f', %s, %s::bigint[])", WORKER, [t.msg_id for t in mine.tasks])
    assert size(claimed(db)) == 2
    dies(db, OTHER)
    assert size(claimed(db)) == 2


@BOTH
def test_retries_and_exceptions_are_held_to_it_too(db: Db, storage: str) -> None:
    run = made(db, storage, 6)
    limit(db, at_once=2)
    found = claimed(db)[0]
    if storage == "ranges":
        fail_items(db, run, [0, 1], lease_no=found.leases[0].lease_no)
    else:
        for task in found.tasks:
            fail(db, run, "m", index=task.task_index)
    make_visible(db, "f")
    again = claimed(db)
    assert size(again) == 2
    assert size(claimed(db, worker=OTHER)) == 0


def test_pieces_of_a_lease_and_what_was_leased_anew_are_counted_once(db: Db) -> None:
    run = made(db, "ranges", 50)
    limit(db, at_once=10)
    [lease] = claimed(db)[0].leases
    complete_parts(db, run, [(lease.lease_no, 4, 2)])
    assert db.value("select held from pgflow.list_limits()") == 8
    release(db, run, [(lease.lease_no, 0, 4)])
    assert size(claimed(db, worker=OTHER)) == 6
    assert db.value("select held from pgflow.list_limits()") == 10
    assert size(claimed(db)) == 0


def test_a_flow_and_its_steps_have_limits_of_their_own(db: Db) -> None:
    flow(db, "f", map_step("a"), map_step("b"), map_step("c"))
    hired(db)
    start(db, "f", [1, 2, 3, 4])
    limit(db, at_once=6)
    limit(db, step="a", at_once=1)
    limit(db, step="b", at_once=2)
    found = claimed(db)[0].tasks
    count = {slug: sum(t.step_slug == slug for t in found) for slug in "abc"}
    assert count == {"a": 1, "b": 2, "c": 3}
    assert size(claimed(db)) == 0
    db.do("select pgflow.set_limit('f')")
    assert size(claimed(db)) == 1


def test_steps_in_both_storages_share_the_limit_of_their_flow(db: Db) -> None:
    ranges_flow(db, "f", map_step("a"), map_step("b"), map_step("c"), tasks=["c"])
    hired(db)
    start(db, "f", list(range(20)))
    limit(db, at_once=9)
    limit(db, step="a", at_once=2)
    found = claimed(db)[0]
    of_a = sum(lease.items for lease in found.leases if lease.step == "a")
    assert (len(found.tasks) + found.items, of_a <= 2) == (9, True)


def test_a_step_without_room_is_passed_over_and_so_are_messages_that_are_put_back(db: Db) -> None:
    flow(db, "f", map_step("a"), "b")
    hired(db)
    run = start(db, "f", list(range(30)))
    limit(db, step="a", at_once=1)
    found = claimed(db, qty=5)[0].tasks
    assert [t.step_slug for t in found] == ["a", "b"]
    assert db.value("select count(*) from pgmq.q_f where vt > clock_timestamp()") == 2
    assert db.value("select max(read_ct) from pgmq.q_f") == 1
    complete(db, run, "a", 1, found[0].task_index)
    assert size(claimed(db)) == 1


def test_runs_share_a_limit_and_none_of_them_starves(db: Db) -> None:
    first = made(db, "ranges", 10)
    second = start(db, "f", list(range(10)))
    limit(db, at_once=1)
    for _ in range(20):
        [lease] = claimed(db)[0].leases
        assert finish(db, lease) == 1
    assert claimed(db)[0].leases == []
    assert (
        db.column("select status from pgflow.runs where run_id = any (%s)", [first, second])
        == ["completed"] * 2
    )


@BOTH
def test_what_was_held_before_the_limit_was_set_counts(db: Db, storage: str) -> None:
    run = made(db, storage)
    before = claimed(db, qty=5, items=5)[0]
    limit(db, at_once=6)
    assert size(claimed(db, worker=OTHER)) == 1
    limit(db, at_once=3)
    assert size(claimed(db, worker=OTHER)) == 0
    complete_some(db, run, before, 4)
    assert size(claimed(db, worker=OTHER)) == 1


def test_what_a_cancelled_run_held_makes_room(db: Db) -> None:
    run = made(db, "tasks")
    limit(db, at_once=2)
    claimed(db)
    other = start(db, "f", [1, 2])
    db.do("select pgflow.cancel_run(%s)", run)
    assert of_runs(claimed(db)[0].tasks) == {other: 2}


def test_a_queue_for_each_step_has_room_of_its_own(db: Db) -> None:
    shape: dict[str, Any] = {
        "steps": [
            {
                "slug": slug, "stepType": "map", "dependencies": [],
                "whenUnmet": "skip", "whenExhausted": "fail",
                "requiredInputPattern": {"defined": False}, "forbiddenInputPattern": {"defined": False},
            }
            for slug in ("a", "b")
        ]
    }  # fmt: skip
    db.rows("select pgflow.ensure_flow_compiled('f', %s, 'step')", shape)
    hired(db, "f__a", WORKER)
    hired(db, "f__b", OTHER)
    start(db, "f", [1, 2, 3])
    limit(db, step="a", at_once=2)
    assert [size(claimed(db)), size(claimed(db))] == [2, 0]
    assert size(claimed(db, worker=OTHER)) == 3


# -- a second --------------------------------------------------------------------------------------------


def pass_time(db: Db, seconds: float) -> None:
    db.do("update pgflow.limits set filled_at = filled_at - make_interval(secs => %s)", seconds)


@BOTH
@SCOPES
def test_no_more_than_so_many_are_handed_out_a_second(db: Db, storage: str, scope: str | None) -> None:
    made(db, storage)
    limit(db, step=scope, rate=5.0, burst=3)
    first, told = claimed(db)
    assert len(first.tasks) + first.items == 3
    assert told is not None
    assert 100 < told.timeout <= 200
    assert size(claimed(db, worker=OTHER)) == 0
    pass_time(db, 0.41)
    assert size(claimed(db)) == 2
    pass_time(db, 100)
    assert size(claimed(db)) == 3
    db.do("select pgflow.set_limit('f', %s)", scope)
    assert size(claimed(db)) > 20


def test_who_comes_late_finds_the_next_the_earlier(db: Db) -> None:
    """So that a worker's way to the database does not make a rate slower than it is."""
    made(db, "ranges", 2000)
    limit(db, rate=4.0)
    db.do("update pgflow.limits set tokens = 0, filled_at = clock_timestamp()")
    got = 0
    for _ in range(100):
        pass_time(db, 0.29)
        got += size(claimed(db))
        db.do("update pgflow.limits set filled_at = clock_timestamp()")
    assert 100 <= got <= 0.29 * 4 * 100 + 1


def test_a_rate_and_a_number_hold_together(db: Db) -> None:
    run = made(db, "tasks")
    limit(db, rate=1000.0, burst=5, at_once=3)
    found, told = claimed(db)
    assert len(found.tasks) == 3
    assert (told is not None and told.timeout) is None
    complete_some(db, run, found, 3)
    assert size(claimed(db)) in (2, 3)


def test_the_burst_is_a_tenth_of_a_second_where_it_is_not_said(db: Db) -> None:
    made(db, "tasks", 1)
    for rate, burst in ((0.01, 1), (5.0, 1), (100.0, 10), (1e9, 10**8)):
        limit(db, rate=rate)
        assert db.value("select burst from pgflow.list_limits()") == burst


# -- setting them ----------------------------------------------------------------------------------------


def test_what_is_set_wins_over_the_code_until_it_is_reset(db: Db) -> None:
    made(db, "tasks")
    columns = "select step_slug, at_once, rate, burst, is_set, coded_at_once from pgflow.list_limits()"
    for _ in range(2):
        db.do("select pgflow.define_limit('f', null, at_once => 5)")
    assert [tuple(vars(r).values()) for r in db.rows(columns)] == [(None, 5, None, None, False, 5)]
    limit(db, rate=2.0)
    db.do("select pgflow.define_limit('f', null, at_once => 6)")
    assert [tuple(vars(r).values()) for r in db.rows(columns)] == [(None, None, 2.0, 1, True, 6)]
    limit(db)
    assert size(claimed(db)) == 100
    assert db.value("select pgflow.reset_limit('f')")
    assert not db.value("select pgflow.reset_limit('f')")
    assert [tuple(vars(r).values()) for r in db.rows(columns)] == [(None, 6, None, None, False, 6)]
    db.do("select pgflow.define_limit('f')")
    assert db.rows(columns) == []
    assert db.value("select count(*) from pgflow.handed_out") == 0


@pytest.mark.parametrize(
    ("call", "sqlstate"),
    [
        ("set_limit('nope', at_once => 1)", "PF016"),
        ("set_limit('f', 'nope', at_once => 1)", "PF016"),
        ("set_limit('f', '', at_once => 1)", "PF016"),
        ("reset_limit('nope')", "PF016"),
        ("set_limit('f', at_once => 0)", "23514"),
        ("set_limit('f', rate => 0)", "23514"),
        ("set_limit('f', rate => -1)", "23514"),
        ("set_limit('f', rate => 'NaN')", "23514"),
        ("set_limit('f', rate => 'Infinity')", "23514"),
        ("set_limit('f', rate => 1, burst => 0)", "23514"),
        ("set_limit('f', burst => 2)", "22023"),
    ],
)
def test_what_is_no_limit_is_refused(db: Db, call: str, sqlstate: str) -> None:
    flow(db, "f", "s")
    assert db.refused(f"select pgflow.{call}").sqlstate == sqlstate


def test_limits_go_with_their_flow(db: Db) -> None:
    made(db, "tasks")
    limit(db, at_once=2)
    claimed(db)
    db.do("select pgflow.delete_flow_and_data('f')")
    assert db.value("select count(*) from pgflow.limits") == 0
    made(db, "tasks")
    assert size(claimed(db)) == 100


def test_pauses_and_limits_hold_together(db: Db) -> None:
    run = made(db, "tasks", 5)
    other = start(db, "f", [1, 2, 3, 4, 5])
    limit(db, at_once=3)
    db.do("select pgflow.pause_run(%s)", run)
    assert of_runs(claimed(db)[0].tasks) == {other: 3}
    db.do("select pgflow.pause_flow('f')")
    limit(db, at_once=9)
    assert size(claimed(db)) == 0


def test_workers_are_told_where_there_is_room_again(alone: Db) -> None:
    run = made(alone, "tasks")
    heard: list[str] = []
    alone.conn.add_notify_handler(lambda n: heard.append(n.payload))
    alone.do("listen pgflow_work")
    found = claimed(alone, qty=2)[0]
    complete_some(alone, run, found, 1)
    alone.do("select 1")
    assert heard == []
    limit(alone, at_once=1)
    complete_some(alone, run, Claimed(found.tasks[1:], [], []), 1)
    alone.do("select 1")
    assert heard == ["f", "f"]  # the limit, and the room


def test_a_step_may_depend_on_one_with_a_limit(db: Db) -> None:
    flow(db, "f", map_step("m"), step("z", "m"))
    hired(db)
    run = start(db, "f", [1])
    limit(db, at_once=1)
    [task] = claimed(db)[0].tasks
    complete(db, run, "m", 1, task.task_index)
    assert [t.step_slug for t in claimed(db)[0].tasks] == ["z"]


def test_what_is_held_back_until_the_rest_is_done_leaves_room_for_the_rest(db: Db) -> None:
    """Else crashed items that fill a limit would wait for ever for the others, and these for them."""
    flow(db, "f", map_step("a"), map_step("b"))
    for worker in (WORKER, OTHER):
        hired(db, worker=worker)
    run = start(db, "f", list(range(20)))
    limit(db, step="a", at_once=1)
    limit(db, step="b", at_once=2)
    limit(db, at_once=3)
    assert size(claimed(db)) == 3
    park = "select * from pgflow.report_parked(array[%s], array[%s], array[%s], array[%s])"
    db.rows(park, WORKER, WORKER, run, 1)
    assert size(claimed(db, worker=OTHER)) == 0  # of which step that one is nobody knows
    db.rows(park, WORKER, WORKER, run, 3)
    assert size(claimed(db, worker=OTHER)) == 3
    db.do("update pgflow.workers set stopped_at = now() where worker_id = %s", WORKER)
    assert size(claimed(db, worker=OTHER)) == 0
    other = made(db, "ranges", slug="g")
    limit(db, "g", at_once=2)
    assert size(claimed(db, slug="g", worker=OTHER)) == 2
    db.rows(park, OTHER, OTHER, other, 1)
    assert size(claimed(db, slug="g", worker=OTHER)) == 1
