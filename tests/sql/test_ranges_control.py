"""Runs with maps in ranges that are cancelled, retried, deleted; what other steps get; events; roles."""

from __future__ import annotations

import uuid

import pytest

from .helpers import (
    WORKER,
    Db,
    complete,
    event_names,
    events,
    make_visible,
    map_step,
    run_row,
    start,
    state,
    statuses,
    step,
    task_statuses,
    tasks,
    work,
)
from .range_work import (
    OTHER,
    assert_whole,
    claim_work,
    complete_parts,
    everything,
    fail_items,
    finish,
    hired,
    mapped,
    parts_of,
    policy,
    ranges,
    ranges_flow,
    release,
    results,
)


def half_done(db: Db) -> uuid.UUID:
    """Of 20 items: 0 to 4 done, 5 to be tried again, 6 done again, 7 to 9 leased, the others not begun."""
    run = mapped(db, 20, step("s", "m"), max_attempts=2)
    claim_work(db, 10)
    complete_parts(db, run, [(1, 0, 5)])
    fail_items(db, run, [5, 6])
    make_visible(db, "f")
    claim_work(db, 0)
    complete(db, run, "m", "six", 6)
    return run


def test_a_cancelled_run_leases_and_takes_nothing(db: Db) -> None:
    run = half_done(db)
    db.do("select pgflow.cancel_run(%s, 'enough')", run)
    assert task_statuses(db, run, "m") == ["cancelled", "completed"]
    assert ranges(db, run) == [(7, 10, None, 0)]
    assert state(db, run, "m").error_message == "enough"
    assert_whole(db, run)
    before = everything(db, run)
    assert claim_work(db) == ([], [], [])
    late = complete_parts(db, run, [(1, 7, 3)])
    assert (late.accepted, late.rejected, late.run_status) == (0, [7], "failed")
    assert fail_items(db, run, [8]).run_status == "failed"
    assert release(db, run, [(1, 7, 3)]) == 0
    hired(db, dead_after="0 seconds")
    db.do("select pgflow.recover_dead_workers()")
    assert everything(db, run) == before


def test_a_retry_goes_on_where_the_run_was(db: Db) -> None:
    run = half_done(db)
    db.do("select pgflow.cancel_run(%s)", run)
    assert db.value("select pgflow.retry_failed_tasks(%s)", run) == 14
    assert (state(db, run, "m").status, state(db, run, "m").remaining_tasks) == ("started", 14)
    assert events(db, run, "step:started", "m")[-1].payload["remaining_tasks"] == 14
    assert_whole(db, run)
    assert complete_parts(db, run, [(1, 7, 3)]).accepted == 0  # a lease of before
    claimed = claim_work(db, 100, OTHER)
    assert [(x.bounds, x.lease_no) for x in claimed.leases] == [((7, 10), 2), ((10, 20), 1)]
    (found,) = claimed.tasks
    assert (found.task_index, found.attempt, found.input) == (5, 1, 5)
    finish(db, *claimed.leases, worker=OTHER)
    complete(db, run, "m", "five", 5)
    expected = [10 * i for i in range(20)]
    assert state(db, run, "m").output == [*expected[:5], "five", "six", *expected[7:]]
    assert statuses(db, run) == {"m": "completed", "s": "started"}


def test_a_failed_item_is_retried_with_its_map(db: Db) -> None:
    run = mapped(db, 10, map_step("k"), max_attempts=1)
    policy(db, "f", "m", tolerated_failures=1)
    claimed = claim_work(db, 8)
    assert sorted((x.step, x.items) for x in claimed.leases) == [("k", 4), ("m", 4)]
    fail_items(db, run, [0])
    assert fail_items(db, run, [2]).run_status == "failed"
    assert db.value("select pgflow.retry_failed_tasks(%s)", run) == 20
    assert (state(db, run, "m").failed_tasks, state(db, run, "m").remaining_tasks) == (0, 10)
    for slug in ("m", "k"):
        assert_whole(db, run, slug)
    make_visible(db, "f")
    claimed = claim_work(db)
    assert [t.task_index for t in claimed.tasks] == [0, 2]
    for index in (0, 2):
        complete(db, run, "m", "again", index)
    finish(db, *claimed.leases)
    output = run_row(db, run).output
    assert output["m"] == ["again", 10, "again", *(10 * i for i in range(3, 10))]
    assert output["k"] == [10 * i for i in range(10)]


def test_a_retry_of_a_run_that_has_only_exceptions_left(db: Db) -> None:
    run = mapped(db, 3, max_attempts=1)
    claim_work(db)
    complete_parts(db, run, [(1, 0, 2)])
    fail_items(db, run, [2])
    assert db.value("select pgflow.retry_failed_tasks(%s)", run) == 1
    assert claim_work(db, qty=0) == ([], [], [])
    assert not db.value("select is_open from pgflow.range_maps")
    make_visible(db, "f")
    assert len(claim_work(db).tasks) == 1
    complete(db, run, "m", 2, 2)
    assert run_row(db, run).output == {"m": [0, 10, 2]}
    assert [e for e in event_names(db, run) if e.endswith("m:completed")] == ["step:m:completed"]


def test_a_retry_after_a_condition_that_was_not_met_keeps_what_is_done(db: Db) -> None:
    run = mapped(
        db, 2, step("s", "m", required_input_pattern={"m": [0, 10, 77]}, when_unmet="fail"), max_attempts=1
    )
    assert complete_parts(db, run, parts_of(*claim_work(db).leases)).run_status == "failed"
    assert statuses(db, run) == {"m": "completed", "s": "failed"}
    db.do("update pgflow.steps set required_input_pattern = '{\"m\": [10]}' where step_slug = 's'")
    db.do("select pgflow.retry_failed_tasks(%s)", run)
    assert statuses(db, run) == {"m": "completed", "s": "started"}
    assert claim_work(db).leases == []


@pytest.mark.parametrize("how", ["flow", "prune"])
def test_what_is_deleted_takes_all_along(db: Db, how: str) -> None:
    run = half_done(db)
    other = mapped(db, 5, slug="g")
    before = everything(db, other)
    if how == "flow":
        db.do("select pgflow.delete_flow_and_data('f')")
    else:
        db.do("select pgflow.cancel_run(%s)", run)
        db.do(
            "update pgflow.runs set started_at = now() - interval '9 days',"
            " failed_at = now() - interval '8 days' where run_id = %s",
            run,
        )
        db.do("select pgflow.prune_data_older_than('7 days')")
    assert {k: v for k, v in everything(db, run).items() if v} == {}
    assert everything(db, other) == before
    assert complete_parts(db, run, [(1, 7, 3)]).accepted == 0
    assert release(db, run, [(1, 7, 3)]) == 0
    assert fail_items(db, run, [7]).accepted == 0


# -- what depends on a map in ranges -------------------------------------------------------------------------


def test_steps_of_every_kind_get_its_outputs(db: Db) -> None:
    ranges_flow(
        db, "f", map_step("m"),
        step("single", "m"),
        step("met", "m", required_input_pattern={"m": [10]}),
        step("unmet", "m", forbidden_input_pattern={"m": [10]}, when_unmet="skip"),
        map_step("t", "m"), map_step("r", "m"),
        map_step("never", "m", required_input_pattern={"m": [7]}, when_unmet="skip"),
        tasks=["t"],
    )  # fmt: skip
    hired(db)
    run = start(db, "f", list(range(4)))
    finish(db, *claim_work(db).leases)
    assert statuses(db, run) == {
        "m": "completed", "single": "started", "met": "started", "unmet": "skipped",
        "t": "started", "r": "started", "never": "skipped",
    }  # fmt: skip
    claimed = claim_work(db)
    found = sorted((t.step_slug, t.task_index, t.input) for t in claimed.tasks)
    array = {"m": [0, 10, 20, 30]}
    assert found == [
        ("met", 0, array), ("single", 0, array), *(("t", i, 10 * i) for i in range(4))
    ]  # fmt: skip
    assert [(x.step, x.items) for x in claimed.leases] == [("r", 4)]


def test_a_map_in_tasks_of_several_windows_reads_the_pages_of_its_parent(db: Db) -> None:
    ranges_flow(db, "f", map_step("m"), map_step("t", "m"), tasks=["t"])
    hired(db)
    run = start(db, "f", list(range(25_000)))
    for lease in claim_work(db, 25_000).leases:
        parts = [(1, first, min(700, 25_000 - first)) for first in range(0, lease.items, 700)]
        complete_parts(db, run, parts)
    assert state(db, run, "t").spawned_tasks == 20_000
    db.do("select pgflow._spawn_tasks('f', %s, 't', 20000, 25000)", run)
    wrong = db.value("select count(*) from pgflow.step_tasks where input <> to_jsonb(10 * task_index)")
    assert (wrong, db.value("select count(*) from pgflow.step_tasks")) == (0, 25_000)


def test_a_map_in_tasks_has_no_ranges_and_a_flow_may_have_both(db: Db) -> None:
    ranges_flow(db, "f", map_step("m"), map_step("t"), step("s", "m", "t"), tasks=["t"])
    hired(db)
    run = start(db, "f", [1, 2])
    claimed = claim_work(db)
    assert (claimed.bounds, [t.step_slug for t in claimed.tasks]) == ([(0, 2)], ["t", "t"])
    assert release(db, run, [(1, 0, 1)], step="t") == 0
    for index in (0, 1):
        complete(db, run, "t", "done", index)
    finish(db, *claimed.leases)
    (found,) = claim_work(db).tasks
    assert found.input == {"m": [0, 10], "t": ["done", "done"]}


# -- events and roles ----------------------------------------------------------------------------------------


def test_events_are_those_of_steps_and_runs(db: Db) -> None:
    run = mapped(db, 4, step("s", "m"), max_attempts=1)
    policy(db, "f", "m", tolerated_failures=1)
    claim_work(db)
    complete_parts(db, run, [(1, 0, 2)])
    fail_items(db, run, [2])
    complete_parts(db, run, [(1, 3, 1)])
    work(db, "f", {"s": 1})
    assert event_names(db, run) == [
        "run:started", "step:m:started", "step:m:completed", "step:s:started", "step:s:completed",
        "run:completed",
    ]  # fmt: skip
    assert all(e.topic == f"pgflow:run:{run}" for e in events(db, run))


def test_a_worker_s_role_needs_no_right_on_any_table(db: Db) -> None:
    run = mapped(db, 30, map_step("n", "m"), max_attempts=1)
    policy(db, "f", "m", tolerated_failures=1)
    db.do("create role pgflow_hand")
    db.do("select pgflow.grant_access('pgflow_hand', 'worker')")
    db.do("set local role pgflow_hand")
    for table in ("range_maps", "ranges", "pages", "step_tasks"):
        assert db.refused(f"select 1 from pgflow.{table}").sqlstate == "42501"
    for function in ("_lease_from_map", "_take_items", "_close_ranges", "_make_tasks", "_take_over_ranges"):
        found = db.column(
            "select has_function_privilege(oid, 'execute') from pg_proc where proname = %s", function
        )
        assert found == [False]
    claimed = claim_work(db, 20)
    assert claimed.items == 20
    assert len(db.rows("select * from pgflow.range_pages(%s, 'm', 0, 5)", run)) == 1
    assert fail_items(db, run, [3]).accepted == 1
    assert release(db, run, [(1, 4, 6)]) == 6
    assert complete_parts(db, run, [(1, 0, 3), (1, 10, 10)]).accepted == 13
    finish(db, *claim_work(db).leases)
    db.do("select pgflow.recover_dead_workers()")
    db.do("select pgflow.retire_worker(%s)", OTHER)
    assert finish(db, *claim_work(db).leases, worker=WORKER) == 30
    db.do("reset role")
    assert run_row(db, run).status == "completed"
    assert len(results(db, run, "n")) == 30
    assert len(tasks(db, run)) == 1
