"""Labels of workers, and what steps require of them (ours): a worker gets what it fits."""

from __future__ import annotations

import uuid

import pytest

from .helpers import WORKER, Db, Row, claim, complete, flow, make_visible, map_step, start, step
from .range_work import OTHER, claim_work, ranges_flow
from .test_flow_limits import claimed, limit, size


def registered(db: Db, worker: uuid.UUID, *labels: str, slug: str = "f") -> None:
    db.do("select pgflow.register_worker(%s, %s, 'w', '1 hour', %s::text[])", worker, slug, list(labels))


def require(db: Db, step: str, *labels: str, slug: str = "f") -> None:
    db.do("select pgflow.set_requirements(%s, %s, %s::text[])", slug, step, list(labels))


def steps_of(rows: list[Row]) -> set[str]:
    return {row.step_slug for row in rows}


@pytest.fixture
def staffed(db: Db) -> Db:
    """Maps a (in tasks) and b (in ranges) that require something; one worker has it, one nothing."""
    ranges_flow(db, "f", map_step("a"), map_step("b"), "c", tasks=["a"])
    registered(db, WORKER)
    registered(db, OTHER, "gpu", "bigmem")
    start(db, "f", [1, 2, 3])
    require(db, "a", "gpu")
    require(db, "b", "bigmem", "gpu")
    return db


def test_a_worker_gets_only_what_it_fits_and_passes_over_the_rest(staffed: Db) -> None:
    plain = claim_work(staffed)
    assert (steps_of(plain.tasks), plain.leases) == ({"c"}, [])
    equipped = claim_work(staffed, worker=OTHER)
    assert (steps_of(equipped.tasks), equipped.items) == ({"a"}, 3)


@pytest.mark.parametrize("function", ["claim_tasks", "claim_tasks_without_input"])
def test_claims_of_before_get_only_what_they_fit(staffed: Db, function: str) -> None:
    query = f"select * from pgflow.{function}('f', %s, 9)"
    assert steps_of(staffed.rows(query, WORKER)) == {"c"}
    assert steps_of(staffed.rows(query, OTHER)) == {"a"}


def test_what_reads_the_queue_itself_gets_only_what_it_fits(staffed: Db) -> None:
    assert steps_of(claim(staffed, "f", 9)) == {"c"}
    make_visible(staffed, "f")
    assert steps_of(claim(staffed, "f", 9, OTHER)) == {"a"}


def test_all_labels_are_needed_and_what_is_required_may_change(staffed: Db) -> None:
    registered(staffed, WORKER, "gpu")
    assert claim_work(staffed, qty=1).leases == []
    registered(staffed, WORKER, "gpu", "bigmem", "more")
    assert claim_work(staffed, 1, qty=0).items == 1
    registered(staffed, WORKER)
    assert claim_work(staffed).leases == []
    require(staffed, "b")
    assert claim_work(staffed).items == 2


def test_many_messages_of_a_step_are_not_looked_at_where_nothing_else_has_begun(db: Db) -> None:
    flow(db, "f", map_step("m"), step("z", "m"))
    registered(db, WORKER)
    start(db, "f", list(range(50)))
    require(db, "m", "gpu")
    assert claim_work(db).tasks == []
    assert db.value("select max(read_ct) from pgmq.q_f") == 0
    registered(db, OTHER, "gpu")
    for task in claim_work(db, worker=OTHER).tasks:
        complete(db, task.run_id, "m", 1, task.task_index)
    assert steps_of(claim_work(db).tasks) == {"z"}


def test_limits_hold_for_who_fits(staffed: Db) -> None:
    limit(staffed, at_once=2)
    assert [size(claimed(staffed)), size(claimed(staffed, worker=OTHER))] == [1, 1]
    assert size(claimed(staffed, worker=OTHER)) == 0


def test_reports_count_workers_that_fit(staffed: Db) -> None:
    run = staffed.value("select run_id from pgflow.runs")
    workers = "select step_slug, workers from pgflow.list_steps(array[%s]) order by 1"
    assert [(r.step_slug, r.workers) for r in staffed.rows(workers, run)] == [("a", 1), ("b", 1), ("c", 2)]
    staffed.do("update pgflow.workers set stopped_at = now() where worker_id = %s", OTHER)
    assert [(r.step_slug, r.workers) for r in staffed.rows(workers, run)] == [("a", 0), ("b", 0), ("c", 1)]
    found = staffed.row("select unserved, workers from pgflow.list_flows()")
    assert (found.unserved, found.workers) == (["a", "b"], 1)
    told = staffed.rows("select * from pgflow.list_requirements(array['f', 'g'])")
    assert [(r.step_slug, r.labels) for r in told] == [("a", ["gpu"]), ("b", ["bigmem", "gpu"])]


@pytest.mark.parametrize("labels", [["a b"], [""], ["-a"], ["x" * 65], [None], [f"l{n}" for n in range(101)]])
def test_what_is_no_label_is_refused(db: Db, labels: list[str | None]) -> None:
    flow(db, "f", "s")
    for call, arguments in (
        ("set_requirements('f', 's', %s::text[])", [labels]),
        ("register_worker(%s, 'f', 'w', null, %s::text[])", [WORKER, labels]),
    ):
        assert db.refused(f"select pgflow.{call}", *arguments).sqlstate == "22023"
    assert db.refused("select pgflow.set_requirements('f', 'no', '{a}')").sqlstate == "PF016"


def test_requirements_go_with_their_step(db: Db) -> None:
    flow(db, "f", "s")
    require(db, "s", "gpu")
    db.do("select pgflow.delete_flow_and_data('f')")
    assert db.rows("select * from pgflow.step_requirements") == []
