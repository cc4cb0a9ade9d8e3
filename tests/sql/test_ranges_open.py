"""Maps in ranges are opened: where their elements are, and what there is to lease."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .helpers import WORKER, Db, complete, drain, event, map_step, run_row, start, state, step, tasks
from .range_work import (
    assert_whole,
    claim_work,
    complete_parts,
    fail_items,
    finish,
    hired,
    mapped,
    parts_of,
    policy,
    ranges,
    ranges_flow,
    replace_limit,
    results,
)


def elements(db: Db, run: uuid.UUID, slug: str) -> list[Any]:
    return db.column("select e from pgflow._map_elements(%s, %s, 0, 2147483647) e", run, slug)


def pages(db: Db, run: uuid.UUID, slug: str) -> list[tuple[int, int]]:
    rows = db.rows(
        "select first_index, items from pgflow.pages where run_id = %s and step_slug = %s and not is_result"
        " order by first_index",
        *(run, slug),
    )
    return [(r.first_index, r.items) for r in rows]


def test_a_root_map_has_its_elements_in_pages_and_no_tasks(db: Db) -> None:
    run = mapped(db, [3, None, {"a": [1]}, "x"])
    at = state(db, run, "m")
    assert (at.status, at.initial_tasks, at.remaining_tasks, at.spawned_tasks) == ("started", 4, 4, 0)
    assert (tasks(db, run), ranges(db, run)) == ([], [])
    assert db.value("select count(*) from pgmq.q_f") == 0
    told = event(db, run, "step:started", "m")
    assert (told["remaining_tasks"], told["remaining_deps"]) == (4, 0)
    claimed = claim_work(db)
    assert claimed.bounds == [(0, 4)]
    assert [(p.task_index, p.items, p.input) for p in claimed.pages] == [(0, 4, [3, None, {"a": [1]}, "x"])]
    assert_whole(db, run)


def test_pages_are_cut_by_bytes(db: Db) -> None:
    small, large = mapped(db, 30_000), mapped(db, ["x" * 10_000] * 20, slug="g")
    assert pages(db, small, "m") == [
        (i, min(n, 30_000 - i)) for n in [pages(db, small, "m")[0][1]] for i in range(0, 30_000, n)
    ]
    assert 3 <= len(pages(db, small, "m")) <= 12
    assert [n for _, n in pages(db, large, "m")] == [7, 7, 6]
    assert elements(db, small, "m") == list(range(30_000))
    assert elements(db, large, "m") == ["x" * 10_000] * 20


def test_a_map_over_the_array_of_a_single_step(db: Db) -> None:
    ranges_flow(db, "f", "one", map_step("m", "one"))
    run = start(db, "f")
    hired(db)
    (task,) = claim_work(db).tasks
    assert task.step_slug == "one"
    complete(db, run, "one", ["a", "b", "c"])
    claimed = claim_work(db)
    assert (claimed.bounds, claimed.pages[0].input) == ([(0, 3)], ["a", "b", "c"])
    assert finish(db, *claimed.leases) == 3
    assert run_row(db, run).output == {"m": [0, 10, 20]}


def test_a_map_over_a_map_in_tasks(db: Db) -> None:
    ranges_flow(db, "f", map_step("t"), map_step("m", "t"), tasks=["t"])
    start(db, "f", [1, 2, 3])
    hired(db)
    assert drain(db, "f") == 3
    claimed = claim_work(db)
    assert (claimed.bounds, claimed.pages[0].input) == ([(0, 3)], [0, 1, 2])


def test_a_map_over_a_map_in_tasks_whose_array_is_missing(db: Db) -> None:
    """As after one that would pass the limit of jsonb: the elements are in the tasks."""
    ranges_flow(db, "f", map_step("t"), map_step("m", "t"), tasks=["t"])
    db.do("select pgflow.set_step_policy('f', 't', tolerated_failures => 1)")
    replace_limit(db, "_largest_json", 40_000)
    run = start(db, "f", list(range(2500)))
    hired(db)
    db.do(
        "update pgflow.step_tasks set"
        " status = case task_index when 5 then 'started' when 7 then 'failed' else 'completed' end,"
        " output = case when task_index not in (5, 7) then to_jsonb(repeat('y', 90) || task_index) end"
    )
    db.do("update pgflow.step_states set remaining_tasks = 1 where step_slug = 't'")
    complete(db, run, "t", "last", 5)
    assert state(db, run, "t").output_is_null
    expected: list[Any] = [f"{'y' * 90}{i}" for i in range(2500)]
    expected[5], expected[7] = "last", None
    assert elements(db, run, "m") == expected
    assert len(pages(db, run, "m")) < 50
    assert claim_work(db, 2500).items == 2500
    assert_whole(db, run)


def test_a_map_over_a_map_in_ranges_reads_its_results_and_copies_nothing(db: Db) -> None:
    run = mapped(db, 6, map_step("n", "m"), max_attempts=1)
    policy(db, "f", "m", tolerated_failures=1)
    claim_work(db)
    fail_items(db, run, [2])
    complete_parts(db, run, [(1, 3, 3), (1, 0, 2)])
    assert state(db, run, "m").status == "completed"
    assert results(db, run) == {0: 0, 1: 10, 2: None, 3: 30, 4: 40, 5: 50}
    assert state(db, run, "m").output_is_null  # a map in ranges reads pages
    assert pages(db, run, "n") == []
    claimed = claim_work(db)
    assert claimed.bounds == [(0, 6)]
    assert sorted((p.step_slug, p.task_index, p.input) for p in claimed.pages) == [
        ("n", 0, [0, 10]), ("n", 2, [None]), ("n", 3, [30, 40, 50])
    ]  # fmt: skip
    assert elements(db, run, "n") == [0, 10, None, 30, 40, 50]
    assert finish(db, *claimed.leases) == 6
    assert run_row(db, run).output == {"n": [0, 10, 20, 30, 40, 50]}


@pytest.mark.parametrize("source", ["input", "single", "map"])
def test_an_empty_array_completes_the_map_at_once(db: Db, source: str) -> None:
    if source == "single":
        ranges_flow(db, "f", "one", map_step("m", "one"), map_step("n", "m"))
        hired(db)
        run = start(db, "f")
        claim_work(db)
        complete(db, run, "one", [])
    else:
        run = mapped(db, 0, map_step("n", "m"))
    assert (run_row(db, run).status, run_row(db, run).output) == ("completed", {"n": []})
    assert claim_work(db).leases == []
    assert db.value("select count(*) from pgflow.range_maps") == 0


def test_a_start_delay_is_waited_for(db: Db) -> None:
    ranges_flow(db, "f", map_step("m", start_delay=60))
    run = start(db, "f", [1, 2])
    hired(db)
    assert claim_work(db).leases == []
    db.do("update pgflow.range_maps set not_before = not_before - interval '59 seconds'")
    assert claim_work(db).leases == []
    db.do("update pgflow.range_maps set not_before = not_before - interval '1 second'")
    assert finish(db, *claim_work(db).leases) == 2
    assert run_row(db, run).status == "completed"


def test_the_storage_of_a_run_is_that_of_the_moment_at_which_its_map_starts(db: Db) -> None:
    run = mapped(db, 4, step("s", "m"))
    policy(db, "f", "m", storage="tasks")
    other = start(db, "f", [1])
    assert (len(tasks(db, run)), len(tasks(db, other))) == (0, 1)
    claimed = claim_work(db)
    assert (claimed.bounds, len(claimed.tasks)) == ([(0, 4)], 1)
    assert complete_parts(db, run, parts_of(*claimed.leases), worker=WORKER).step_status == "completed"
