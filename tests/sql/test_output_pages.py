"""Outputs of a completed step page by page, and the input of a step over parents that do not fit together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from .helpers import WORKER, Db, claim, complete, fail, flow, map_step, start, state, step, worker
from .range_rows import complete_items, ranges_run

EVERYTHING = 1 << 30


def page(
    db: Db, run: UUID, slug: str, index: int, max_bytes: int = EVERYTHING
) -> tuple[int, int, Any] | None:
    """The first item, the number of items and the outputs of a page."""
    rows = db.rows("select * from pgflow.output_page(%s, %s, %s, %s)", run, slug, index, max_bytes)
    if not rows:
        return None
    body = b"".join(row.piece for row in rows)
    assert {(row.first_index, row.items, row.bytes) for row in rows} == {
        (rows[0].first_index, rows[0].items, len(body))
    }
    return rows[0].first_index, rows[0].items, json.loads(body)


def all_pages(db: Db, run: UUID, slug: str, max_bytes: int) -> list[list[Any]]:
    found: list[list[Any]] = []
    at = 0
    while (it := page(db, run, slug, at, max_bytes)) is not None:
        assert it[0] == at
        assert it[1] == len(it[2])
        found.append(it[2])
        at += it[1]
    return found


def map_in_tasks(db: Db, outputs: Sequence[Any]) -> UUID:
    run = start(db, flow(db, "f", map_step("m"), step("s", "m")), list(range(len(outputs))))
    claim(db, "f", len(outputs))
    for index, output in enumerate(outputs):
        complete(db, run, "m", output, index)
    return run


def map_in_ranges(db: Db, *pages: Sequence[Any]) -> UUID:
    run = ranges_run(db, list(range(sum(map(len, pages)))))
    first = 0
    for outputs in pages:
        complete_items(db, run, first, outputs)
        first += len(outputs)
    db.do(
        "update pgflow.step_states set status = 'completed', completed_at = now(), output = null"
        " where run_id = %s and step_slug = 'm'",
        run,
    )
    return run


TEXT = 'ä\n"\\\u2028' * 50
VALUES = [1, None, TEXT, {"a": [1.5, {}]}, [], [[TEXT]], True, "x"]


@pytest.mark.parametrize("max_bytes", [1, 700, EVERYTHING])
def test_pages_of_a_map_in_tasks_cover_it_and_keep_to_their_bytes(db: Db, max_bytes: int) -> None:
    run = map_in_tasks(db, VALUES)
    pages = all_pages(db, run, "m", max_bytes)
    assert [value for each in pages for value in each] == VALUES
    assert [len(each) for each in pages] == {1: [1] * 8, 700: [5, 3], EVERYTHING: [8]}[max_bytes]


@pytest.mark.parametrize("max_bytes", [1, 700, EVERYTHING])
def test_pages_of_a_map_in_ranges_are_whole_stored_ones(db: Db, max_bytes: int) -> None:
    run = map_in_ranges(db, VALUES[:3], VALUES[3:4], VALUES[4:6], VALUES[6:])
    pages = all_pages(db, run, "m", max_bytes)
    assert [value for each in pages for value in each] == VALUES
    assert [len(each) for each in pages] == {1: [3, 1, 2, 2], 700: [4, 4], EVERYTHING: [8]}[max_bytes]
    assert page(db, run, "m", 5, 1) == (4, 2, VALUES[4:6])


def test_null_stands_for_what_failed_and_was_tolerated(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m"), step("s", "m"), max_attempts=1), [0, 1, 2])
    db.do("select pgflow.set_step_policy('f', 'm', tolerated_failures => 1)")
    claim(db, "f", 3)
    complete(db, run, "m", "a", 0)
    fail(db, run, "m", "boom", 1)
    complete(db, run, "m", "c", 2)
    assert page(db, run, "m", 0) == (0, 3, ["a", None, "c"])
    assert page(db, run, "m", 2) == (2, 1, ["c"])


def test_a_large_page_comes_in_pieces(db: Db) -> None:
    text = "ö" * 1_200_000
    run = map_in_tasks(db, [text, 1])
    rows = db.rows("select * from pgflow.output_page(%s, 'm', 0, 1000)", run)
    assert [len(row.piece) for row in rows] == [1 << 20, 1 << 20, 2_400_004 - (2 << 20)]
    assert page(db, run, "m", 0, 1000) == (0, 1, [text])


def test_a_step_of_one_task_has_one_page(db: Db) -> None:
    run = start(db, flow(db, "f", "s"))
    claim(db, "f")
    complete(db, run, "s", {"b": [1]})
    rows = db.rows("select * from pgflow.output_page(%s, 's', 0, 1)", run)
    assert [(row.first_index, row.items, row.piece) for row in rows] == [(0, None, b'{"b": [1]}')]


def test_there_is_nothing_before_a_step_is_completed_nor_beyond_it(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m")), [1, 2])
    claim(db, "f", 2)
    complete(db, run, "m", 1, 0)
    assert page(db, run, "m", 0) is None
    complete(db, run, "m", 2, 1)
    assert page(db, run, "m", 1) == (1, 1, [2])
    assert [page(db, run, "m", index) for index in (2, -1)] == [None, None]
    assert page(db, run, "other", 0) is None


def test_pages_end_where_one_is_missing(db: Db) -> None:
    run = map_in_ranges(db, [1, 2], [3], [4, 5])
    db.do("delete from pgflow.pages where run_id = %s and first_index = 2 and is_result", run)
    assert page(db, run, "m", 0) == (0, 2, [1, 2])
    assert page(db, run, "m", 2) is None
    assert page(db, run, "m", 3) == (3, 2, [4, 5])


# -- inputs of steps over parents of any size --------------------------------------------------------


@pytest.fixture
def bounded(db: Db) -> Db:
    """A database in which a claim stops at 1000 bytes of input, and no more is kept in two places."""
    for limit in ("_claim_bytes", "_largest_leaf"):
        db.do(
            f"create or replace function pgflow.{limit}() returns bigint language sql immutable "
            "set search_path = pg_catalog, pg_temp as 'select 1000::bigint'"
        )
    return db


def text(length: int) -> str:
    return "x" * length


def claimed_input(db: Db, slug: str = "both") -> Any:
    worker(db, "f")
    rows = db.rows("select step_slug, input from pgflow.claim_work('f', %s, 10, 0)", WORKER)
    return {row.step_slug: row.input for row in rows}[slug]


def two_parents(db: Db, a: int, b: int) -> UUID:
    """Map a with two outputs of so many bytes, single step b with one; "both" depends on them and on c."""
    steps = (map_step("a"), "b", "c", step("both", "a", "b", "c"))
    run = start(db, flow(db, "f", *steps), [1, 2])
    claim(db, "f", 4)
    complete(db, run, "a", text(a), 0)
    complete(db, run, "a", text(a), 1)
    complete(db, run, "b", text(b))
    complete(db, run, "c", None)
    return run


@pytest.mark.parametrize(
    ("a", "b", "paged"),
    [
        (100, 100, None),
        (600, 100, {"a": 2}),
        (600, 1200, {"a": 2, "b": None}),
        (100, 1200, {"b": None}),
        (300, 600, {"a": 2}),  # small ones first
    ],
)
def test_what_does_not_fit_together_is_named_instead(
    bounded: Db, a: int, b: int, paged: dict[str, int | None] | None
) -> None:
    run = two_parents(bounded, a, b)
    whole = {"a": [text(a)] * 2, "b": text(b), "c": None}
    assert claimed_input(bounded) == (whole if paged is None else None)
    found = bounded.row("select * from pgflow.paged_input(%s, 'both', 0)", run)
    assert found.paged == paged
    assert found.input == {slug: value for slug, value in whole.items() if slug not in (paged or {})}
    assert bounded.row("select input from pgflow.task_input(%s, 'both', 0)", run).input == whole


def test_a_map_that_no_array_holds_is_named_too(db: Db) -> None:
    db.do(
        "create or replace function pgflow._largest_json() returns bigint language sql immutable "
        "set search_path = pg_catalog, pg_temp as 'select 2000::bigint'"
    )
    run = two_parents(db, 1200, 10)
    assert claimed_input(db) is None
    found = db.row("select * from pgflow.paged_input(%s, 'both', 0)", run)
    assert (found.input, found.paged) == ({"b": text(10), "c": None}, {"a": 2})
    assert page(db, run, "a", 0) == (0, 2, [text(1200)] * 2)


def test_others_have_their_whole_input(bounded: Db) -> None:
    run = start(bounded, flow(bounded, "f", "root", map_step("m")), [text(2000), 2])
    found = bounded.row("select * from pgflow.paged_input(%s, 'root', 0)", run)
    assert (found.input, found.flow_input, found.paged) == ({}, [text(2000), 2], None)
    found = bounded.row("select * from pgflow.paged_input(%s, 'm', 1)", run)
    assert (found.input, found.flow_input, found.paged) == (2, None, None)


# -- the array of a map in ranges ----------------------------------------------------------------------


def finished_in_ranges(db: Db, *outputs: Any, child: Any = None) -> UUID:
    """A run whose map "m" in ranges is completed with these outputs; "s", or ``child``, depends on it."""
    flow(db, "f", map_step("m"), child or step("s", "m"))
    db.do("select pgflow.set_step_policy('f', 'm', storage => 'ranges')")
    run = start(db, "f", list(range(len(outputs))))
    worker(db, "f")
    db.do("update pgflow.workers set dead_after = '1 minute'")
    db.rows("select * from pgflow.claim_work('f', %s, 0, %s)", WORKER, len(outputs))
    db.do(
        "select pgflow.complete_ranges(%s, 'm', %s, '{1}', '{0}', array[%s], array[%s::jsonb])",
        *(run, WORKER, len(outputs), json.dumps(outputs)),
    )
    assert state(db, run, "m").status == "completed"
    return run


def test_a_condition_about_a_map_in_ranges_that_no_array_holds_fails_the_run_and_says_why(db: Db) -> None:
    db.do(
        "create or replace function pgflow._largest_json() returns bigint language sql immutable "
        "set search_path = pg_catalog, pg_temp as 'select 1250::bigint'"
    )
    child = step("s", "m", required_input_pattern={"m": ["x"]})
    run = finished_in_ranges(db, text(600), text(700), child=child)
    assert state(db, run, "s").error_message.startswith(
        'Condition cannot be tested: step "s" task 0: its input is too large: the outputs of map "m" (2 items'
    )


def test_what_a_step_reads_by_pages_is_stored_once(bounded: Db) -> None:
    run = finished_in_ranges(bounded, text(600), text(700))
    assert state(bounded, run, "m").output is None
    whole = {"m": [text(600), text(700)]}
    assert claimed_input(bounded, "s") is None
    found = bounded.row("select * from pgflow.paged_input(%s, 's', 0)", run)
    assert (found.input, found.paged) == ({}, {"m": 2})
    # Whoever reads no pages gets it whole.
    assert bounded.row("select * from pgflow.task_input(%s, 's', 0)", run).input == whole
    bounded.do("update pgflow.step_tasks set status = 'queued', message_id = message_id")
    bounded.do("update pgmq.q_f set vt = clock_timestamp()")
    assert [row.input for row in claim(bounded, "f")] == [whole]


@pytest.mark.parametrize(
    ("sizes", "child"),
    [
        ((300, 300), step("s", "m")),
        ((600, 700), step("s", "m", required_input_pattern={"m": [text(600)]})),
        ((600, 700), map_step("s", "m")),
    ],
)
def test_what_something_needs_as_an_array_is_stored_as_one(bounded: Db, sizes: Any, child: Any) -> None:
    outputs = [text(size) for size in sizes]
    run = finished_in_ranges(bounded, *outputs, child=child)
    assert state(bounded, run, "m").output == outputs
    assert state(bounded, run, "s").status == "started"


def test_maps_in_ranges_that_fit_no_value_together_are_named_with_their_sizes(bounded: Db) -> None:
    bounded.do(
        "create or replace function pgflow._largest_json() returns bigint language sql immutable "
        "set search_path = pg_catalog, pg_temp as 'select 1250::bigint'"
    )
    run = finished_in_ranges(bounded, text(600), text(700))
    found = bounded.row("select * from pgflow.task_input(%s, 's', 0)", run)
    assert found.input is None
    assert found.problem.endswith(
        'the outputs of map "m" (2 items, too large alone) pass the 0 MB that one JSON value may hold in '
        "PostgreSQL"
    )
    assert bounded.row("select * from pgflow.paged_input(%s, 's', 0)", run).paged == {"m": 2}


def test_what_is_more_than_comes_with_a_claim_is_read_by_pages_although_one_might_hold_it(db: Db) -> None:
    assert (db.value("select pgflow._single_bytes()"), db.value("select pgflow._claim_bytes()")) == (
        4 << 20,
        16 << 20,
    )
    large = [text(1 << 20) for _ in range(5)]
    run = finished_in_ranges(db, *large)
    assert claimed_input(db, "s") is None
    assert db.row("select * from pgflow.paged_input(%s, 's', 0)", run).paged == {"m": 5}


def test_what_comes_with_a_claim_is_made_of_pages_there(db: Db) -> None:
    large = [text(1 << 20) for _ in range(3)]
    finished_in_ranges(db, *large)
    assert state(db, db.value("select run_id from pgflow.runs"), "m").output is None
    assert claimed_input(db, "s") == {"m": large}
