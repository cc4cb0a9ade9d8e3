"""What passes the limit of jsonb, with the limit lowered: maps, inputs, conditions, runs; never an error."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from pgflow_mp.db.engine import claim_tasks

from .helpers import WORKER, Db, claim, complete, flow, map_step, run_row, start, state, step, task, worker

LIMIT = 2000


@pytest.fixture
def small(db: Db) -> Db:
    """A database in which a JSON value holds at most LIMIT bytes."""
    db.do(
        "create or replace function pgflow._largest_json() returns bigint language sql immutable "
        f"set search_path = pg_catalog, pg_temp as 'select {LIMIT}::bigint'"
    )
    return db


def finish_map(db: Db, run: UUID, slug: str, *outputs: Any) -> None:
    for index, output in enumerate(outputs):
        complete(db, run, slug, output, index)


def text(length: int) -> str:
    return "x" * length


def two_maps(db: Db, *more: Any, sizes: tuple[int, int] = (1200, 1200)) -> UUID:
    """A run whose two maps, a and b, have completed with outputs of these sizes."""
    run = start(db, flow(db, "f", map_step("a"), map_step("b"), *more), [1, 2])
    claim(db, "f", 4)
    for slug, size in zip("ab", sizes, strict=True):
        finish_map(db, run, slug, text(size // 2), text(size // 2))
    return run


def test_a_map_is_collected_up_to_the_limit(small: Db) -> None:
    run = two_maps(small, sizes=(LIMIT - 100, LIMIT + 100))
    assert len(state(small, run, "a").output) == 2
    assert (state(small, run, "b").status, state(small, run, "b").output) == ("completed", None)


def test_small_numbers_are_not_taken_for_more_than_they_need(small: Db) -> None:
    # 140 numbers: 20 bytes each by themselves, 12 in an array.
    run = start(small, flow(small, "f", map_step("a")), list(range(140)))
    claim(small, "f", 140)
    finish_map(small, run, "a", *range(140))
    assert state(small, run, "a").output == list(range(140))
    assert run_row(small, run).output == {"a": list(range(140))}


@pytest.mark.parametrize(
    ("sizes", "single", "output"),
    [
        ((1200, 1200), 10, ["a", "s"]),
        ((1500, 1200), 10, ["b", "s"]),
        ((1200, 1200), 1500, ["s"]),
        ((LIMIT + 100, 300), 10, ["b", "s"]),
        ((LIMIT + 100, LIMIT + 100), 10, ["s"]),
        ((300, 300), 10, ["a", "b", "s"]),
    ],
)
def test_a_run_completes_and_its_output_names_the_maps_it_cannot_hold(
    small: Db, sizes: tuple[int, int], single: int, output: list[str]
) -> None:
    run = two_maps(small, "s", sizes=sizes)
    claim(small, "f")
    complete(small, run, "s", text(single))
    found = run_row(small, run)
    assert (found.status, sorted(found.output)) == ("completed", ["a", "b", "s"])
    assert [slug for slug, value in sorted(found.output.items()) if value is not None] == output


def test_two_steps_of_one_task_that_do_not_fit_into_a_runs_output_complete_it_too(small: Db) -> None:
    run = start(small, flow(small, "f", "a", "b"))
    claim(small, "f", 2)
    complete(small, run, "a", text(1200))
    complete(small, run, "b", text(1300))
    found = run_row(small, run)
    assert (found.status, found.output) == ("completed", {"a": text(1200), "b": None})
    assert state(small, run, "b").output == text(1300)


def take(db: Db, qty: int = 10) -> list[Any]:
    worker(db, "f")
    return db.rows(
        "select step_slug, task_index, input, flow_input from pgflow.claim_tasks('f', %s, %s)", WORKER, qty
    )


def problem(db: Db, run: UUID, slug: str) -> Any:
    return db.row("select * from pgflow.task_input(%s, %s, 0)", run, slug)


def test_a_step_over_two_large_maps_is_claimed_without_input_and_beside_others(small: Db) -> None:
    run = two_maps(small, step("both", "a", "b"), step("one", "a"), "root")
    rows = {row.step_slug: row for row in take(small)}
    assert sorted(rows) == ["both", "one", "root"]
    assert rows["both"].input is None
    assert rows["one"].input == {"a": [text(600)] * 2}
    assert problem(small, run, "both").problem == (
        'step "both" task 0: its input is too large: the outputs of map "a" (0.0 MB), map "b" (0.0 MB) pass '
        "the 0 MB that one JSON value may hold in PostgreSQL"
    )
    found = problem(small, run, "one")
    assert (found.input, found.problem) == (rows["one"].input, None)
    assert problem(small, run, "root").flow_input == [1, 2]


def test_a_step_over_a_map_without_array_is_claimed_without_input(small: Db) -> None:
    run = two_maps(small, step("over", "a"), sizes=(LIMIT + 100, 10))
    (row,) = take(small)
    assert (row.step_slug, row.input) == ("over", None)
    assert 'map "a" (2 items, too large alone)' in problem(small, run, "over").problem


def test_a_completed_map_without_tasks_is_an_empty_array_as_ever(small: Db) -> None:
    start(small, flow(small, "f", map_step("a"), step("over", "a")), [])
    (row,) = take(small)
    assert row.input == {"a": []}


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"required_input_pattern": {"a": [text(600)]}}, "started"),
        ({"required_input_pattern": {"a": [text(600)], "b": [text(600)]}}, "started"),
        ({"required_input_pattern": {"a": [text(600)], "b": ["other"]}}, "skipped"),
        ({"required_input_pattern": {"a": text(600)}}, "skipped"),  # as within an object
        ({"required_input_pattern": {}}, "started"),
        ({"required_input_pattern": {"c": 1}}, "skipped"),
        ({"forbidden_input_pattern": {"a": ["other"]}}, "started"),
        ({"forbidden_input_pattern": {"b": [text(600)]}}, "skipped"),
    ],
)
def test_a_condition_over_parents_that_are_too_large_together_is_tested_one_by_one(
    small: Db, conditions: dict[str, Any], status: str
) -> None:
    run = two_maps(small, step("both", "a", "b", **conditions), "root")
    assert state(small, run, "both").status == status


def test_a_condition_that_cannot_be_tested_fails_the_run_and_says_why(small: Db) -> None:
    condition = {"required_input_pattern": {"b": ["x"]}}
    run = two_maps(small, step("both", "a", "b", **condition), sizes=(10, LIMIT + 100))
    found = state(small, run, "both")
    assert (found.status, run_row(small, run).status) == ("failed", "failed")
    assert found.error_message.startswith(
        'Condition cannot be tested: step "both" task 0: its input is too large: '
        'the outputs of map "b" (2 items'
    )
    assert state(small, run, "b").status == "completed"


def test_a_map_over_a_map_without_array_gets_its_elements(small: Db) -> None:
    run = start(small, flow(small, "f", map_step("a"), map_step("m", "a")), [1, 2])
    claim(small, "f", 2)
    finish_map(small, run, "a", text(1200), text(1300))
    assert [row.input for row in take(small)] == [text(1200), text(1300)]


# -- claims bounded by bytes -----------------------------------------------------------------------


@pytest.fixture
def bounded(db: Db) -> Db:
    """A database in which a claim stops at 1000 bytes of input."""
    db.do(
        "create or replace function pgflow._claim_bytes() returns bigint language sql immutable "
        "set search_path = pg_catalog, pg_temp as 'select 1000::bigint'"
    )
    return db


def queue(db: Db) -> list[tuple[int, bool, int]]:
    rows = db.rows("select msg_id, vt <= clock_timestamp() as visible, read_ct from pgmq.q_f order by 1")
    return [(row.msg_id, row.visible, row.read_ct) for row in rows]


def test_a_claim_stops_at_so_many_bytes_and_leaves_the_rest_as_it_was(bounded: Db) -> None:
    run = start(bounded, flow(bounded, "f", map_step("m")), [text(400)] * 7)
    assert [[row.task_index for row in take(bounded, 6)] for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
    assert queue(bounded) == [(n, n == 7, int(n < 7)) for n in range(1, 8)]
    assert (task(bounded, run, "m", 6).status, task(bounded, run, "m", 6).attempts_count) == ("queued", 0)
    assert [row.task_index for row in take(bounded)] == [6]


def test_one_task_is_claimed_however_large_it_is(bounded: Db) -> None:
    start(bounded, flow(bounded, "f", map_step("m")), [text(4000)] * 2)
    assert [len(take(bounded)) for _ in range(3)] == [1, 1, 0]


def test_inputs_of_steps_of_one_task_count(bounded: Db) -> None:
    start(bounded, flow(bounded, "f", "a", "b", "c"), text(600))
    assert [len(take(bounded)) for _ in range(3)] == [2, 1, 0]
    for _ in range(3):
        start(bounded, flow(bounded, "g", "root", step("s", "root")))
    for row in bounded.rows("select run_id from pgflow.step_tasks where flow_slug = 'g' order by message_id"):
        claim(bounded, "g")
        complete(bounded, row.run_id, "root", text(700))
    worker(bounded, "g")
    query = "select input from pgflow.claim_tasks('g', %s, 10)"
    assert [len(bounded.rows(query, WORKER)) for _ in range(3)] == [2, 1, 0]


def test_start_tasks_is_not_bounded(bounded: Db) -> None:
    start(bounded, flow(bounded, "f", map_step("m")), [text(400)] * 7)
    assert len(claim(bounded, "f", 7)) == 7


def test_tasks_can_be_claimed_without_their_inputs(bounded: Db) -> None:
    run = start(bounded, flow(bounded, "f", map_step("m"), "s"), [text(400)] * 7)
    worker(bounded, "f")
    rows = claim_tasks(bounded.conn, "f", str(WORKER), 10, with_input=False)
    assert [list(row[5:7]) for row in rows] == [[None, None]] * 8
    found = bounded.row("select * from pgflow.task_input(%s, 'm', 3)", run)
    assert (found.input, found.flow_input, found.problem) == (text(400), None, None)
    found = bounded.row("select * from pgflow.task_input(%s, 's', 0)", run)
    assert (found.input, found.flow_input, found.problem) == ({}, [text(400)] * 7, None)
