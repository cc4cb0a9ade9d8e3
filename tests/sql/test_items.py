"""The view pgflow.items and the function pgflow.item: one row an item, in either storage."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .helpers import WORKER, Db, Row, claim, complete, fail, flow, map_step, setup, start, step
from .range_rows import OWNER, advance, complete_items, exception, lease, ranges_run, write_page

COLUMNS = (
    "run_id uuid",
    "flow_slug text",
    "step_slug text",
    "item_index integer",
    "status text",
    "attempts integer",
    "input jsonb",
    "output jsonb",
    "error text",
    "worker_id uuid",
    "queued_at timestamp with time zone",
    "started_at timestamp with time zone",
    "completed_at timestamp with time zone",
    "failed_at timestamp with time zone",
    "storage text",
)
ROLE = "pgflow_items_role"


def items(db: Db, run: uuid.UUID, slug: str = "m") -> list[Row]:
    query = "select * from pgflow.items where run_id = %s and step_slug = %s order by item_index"
    return db.rows(query, run, slug)


def told(row: Row) -> tuple[Any, ...]:
    return row.item_index, row.status, row.attempts, row.input, row.output, row.error, row.worker_id


def same_one_by_one(db: Db, run: uuid.UUID, slug: str, rows: list[Row]) -> bool:
    """Whether the function answers each index, and those around them, as the view does."""
    found = [db.rows("select * from pgflow.item(%s, %s, %s)", run, slug, row.item_index) for row in rows]
    beyond = [db.rows("select * from pgflow.item(%s, %s, %s)", run, slug, i) for i in (-1, len(rows))]
    return found == [[row] for row in rows] and beyond == [[], []]


def test_its_columns_are_stable(plain_db: Db) -> None:
    found = plain_db.column(
        "select attname || ' ' || format_type(atttypid, null) from pg_attribute"
        " where attrelid = 'pgflow.items'::regclass order by attnum"
    )
    assert tuple(found[: len(COLUMNS)]) == COLUMNS


# -- tasks ---------------------------------------------------------------------------------------------------


def test_tasks_are_items_with_all_that_is_known_of_them(db: Db) -> None:
    flow(db, "f", map_step("m", max_attempts=1), step("s", "m"))
    db.do("select pgflow.set_step_policy('f', 'm', tolerated_failures => 1)")
    run = start(db, "f", ["a", "b", "c"])
    claim(db, "f", 2)
    complete(db, run, "m", "A", 0)
    fail(db, run, "m", "broken", 1)
    rows = items(db, run)
    assert [told(row) for row in rows] == [
        (0, "completed", 1, "a", "A", None, WORKER),
        (1, "failed", 1, "b", None, "broken", WORKER),
        (2, "queued", 0, "c", None, None, None),
    ]
    assert {row.storage for row in rows} == {"tasks"}
    assert [row.completed_at is None for row in rows] == [False, True, True]
    assert [row.failed_at is None for row in rows] == [True, False, True]
    assert items(db, run, "s") == []  # has not started
    assert same_one_by_one(db, run, "m", rows)


def test_tasks_that_are_not_spawned_yet_are_items_too(db: Db) -> None:
    run = start(db, setup(db, "root_map"), list(range(20_100)))
    assert db.value("select count(*) from pgflow.step_tasks") == 20_000
    counts = "select status, count(*), max(item_index) from pgflow.items where run_id = %s group by 1"
    assert db.row(counts, run) == Row(status="queued", count=20_100, max=20_099)
    (last,) = db.rows("select * from pgflow.item(%s, 'items', 20099)", run)
    assert (last.status, last.storage, last.attempts) == ("queued", "tasks", 0)
    db.do("select pgflow.cancel_run(%s)", run)
    assert db.row(counts, run) == Row(status="cancelled", count=20_100, max=20_099)


def test_rows_that_were_written_by_hand_are_counted_once(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2, 3])
    db.do("update pgflow.step_states set spawned_tasks = 0")
    assert [row.item_index for row in items(db, run, "items")] == [0, 1, 2]


def test_an_unknown_run_or_step_has_no_item(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1])
    assert db.rows("select * from pgflow.item(%s, 'items', 0)", uuid.uuid4()) == []
    for slug in ("nope", "", None):
        assert db.rows("select * from pgflow.item(%s, %s, 0)", run, slug) == []
    for index in (None, 2**31 - 1, -(2**31)):
        assert db.rows("select * from pgflow.item(%s, 'items', %s::int)", run, index) == []


# -- ranges --------------------------------------------------------------------------------------------------


def test_items_of_a_map_in_ranges(db: Db) -> None:
    run = ranges_run(db, [f"i{n}" for n in range(10)])
    complete_items(db, run, 1, [10, None, {"x": [1]}])
    exception(db, run, 0, "failed")
    exception(db, run, 4, "queued")
    exception(db, run, 5, "completed", output='"task"', last_worker_id=WORKER, error_message=None)
    complete_items(db, run, 5, ["page"])
    lease(db, run, 6, 7)
    lease(db, run, 7, 8, None)
    rows = items(db, run)
    assert [told(row) for row in rows] == [
        (0, "failed", 1, "in", None, "broken", None),
        (1, "completed", 1, "i1", 10, None, OWNER),
        (2, "completed", 1, "i2", None, None, OWNER),
        (3, "completed", 1, "i3", {"x": [1]}, None, OWNER),
        (4, "queued", 1, "in", None, "broken", None),
        (5, "completed", 1, "in", "task", None, WORKER),
        (6, "started", 1, "i6", None, None, OWNER),
        (7, "queued", 0, "i7", None, None, None),
        (8, "queued", 0, "i8", None, None, None),
        (9, "queued", 0, "i9", None, None, None),
    ]
    assert db.value("select output = 'null' from pgflow.item(%s, 'm', 2)", run)
    assert {row.storage for row in rows} == {"ranges"}
    assert [row.item_index for row in rows if row.completed_at] == [1, 2, 3, 5]
    assert [row.item_index for row in rows if row.started_at] == [1, 2, 3, 6]
    assert all(row.queued_at for row in rows)
    assert same_one_by_one(db, run, "m", rows)


@pytest.mark.parametrize(
    ("update", "status"),
    [
        ("update pgflow.runs set status = 'failed', failed_at = now()", "cancelled"),
        (
            "update pgflow.step_states set status = 'skipped', skip_reason = 'x', skipped_at = now()",
            "skipped",
        ),
    ],
)
def test_what_was_not_done_when_its_run_or_step_ended_says_so(db: Db, update: str, status: str) -> None:
    run = ranges_run(db, range(6))
    complete_items(db, run, 0, [1])
    lease(db, run, 2, 3)
    lease(db, run, 3, 4, None)
    advance(db, run, 5)
    db.do("update pgflow.step_states set remaining_tasks = null")
    db.do(update)
    assert [row.status for row in items(db, run)] == ["completed", *[status] * 5]


def child_of(db: Db, run: uuid.UUID, items: int) -> None:
    """A map "c" in ranges over map "m", which does not wait for it."""
    db.do("select pgflow.add_step('r', 'c', array['m'], step_type => 'map')")
    db.do(
        "insert into pgflow.step_states (flow_slug, run_id, step_slug, status, initial_tasks,"
        " remaining_tasks, remaining_deps, started_at) values ('r', %s, 'c', 'started', %s, %s, 0, now())",
        *(run, items, items),
    )
    db.do(
        "insert into pgflow.range_maps (run_id, step_slug, flow_slug, items, source_step)"
        " values (%s, 'c', 'r', %s, 'm')",
        *(run, items),
    )


def cuts(dice: random.Random, n: int) -> list[tuple[int, int]]:
    edges = sorted({0, n, *(dice.randrange(n) for _ in range(dice.randrange(1, 8)))})
    return list(itertools.pairwise(edges))


@pytest.mark.parametrize("seed", range(12))
def test_every_index_has_one_row_whatever_the_state_is(db: Db, seed: int) -> None:
    dice = random.Random(seed)
    n = dice.randrange(1, 40)
    run = ranges_run(db, [f"e{i}" for i in range(n)], page=dice.randrange(1, 12))
    child_of(db, run, n)
    expected: dict[int, tuple[str, Any, Any]] = {}
    parents: dict[int, Any] = {}
    for first, end in cuts(dice, n):
        fate = dice.choice(["page", "task", "task and page", "lease", "free", "nothing"])
        for i in range(first, end):
            output = i * 10 if fate in ("page", "task and page") else None
            status = {"page": "completed", "task and page": "completed", "lease": "started"}.get(
                fate, "queued"
            )
            expected[i] = (status, "in" if fate.startswith("task") else f"e{i}", output)
            if output is not None:
                parents[i] = output
            if fate.startswith("task"):
                extra = {"output": str(i * 10), "error_message": None} if output is not None else {}
                exception(db, run, i, status, **extra)
        if fate == "task and page" and dice.random() < 0.7:
            write_page(db, run, "m", first, [i * 10 for i in range(first, end)])
        elif fate == "task and page":
            for i in range(first, end):
                del parents[i]
        if fate == "page":
            complete_items(db, run, first, [i * 10 for i in range(first, end)])
        elif fate in ("lease", "free"):
            lease(db, run, first, end, OWNER if fate == "lease" else None)
    child_done = sorted(i for i in parents if dice.random() < 0.5)
    for i in child_done:
        write_page(db, run, "c", i, [f"c{i}"])
    rows = items(db, run)
    assert {row.item_index: (row.status, row.input, row.output) for row in rows} == expected
    assert len(rows) == n
    assert same_one_by_one(db, run, "m", rows)
    rows = items(db, run, "c")
    assert [(row.item_index, row.input) for row in rows] == [(i, parents.get(i)) for i in range(n)]
    assert [row.item_index for row in rows if row.output == f"c{row.item_index}"] == child_done
    assert same_one_by_one(db, run, "c", rows)


def test_one_item_of_many_costs_a_look_at_its_pages_only(db: Db) -> None:
    run = ranges_run(db, range(4000), page=10)
    db.do(
        "insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body)"
        " select %s, 'm', true, i * 10, 10, '[0,1,2,3,4,5,6,7,8,9]' from generate_series(0, 399) i",
        run,
    )

    def fetched() -> int:
        query = (
            "select sum(idx_tup_fetch + seq_tup_read)::int from pg_stat_xact_user_tables"
            " where relname in ('pages', 'ranges', 'step_tasks')"
        )
        found: int = db.value(query)
        return found

    before = fetched()
    assert db.value("select output from pgflow.item(%s, 'm', 3999)", run) == 9
    assert fetched() - before < 20
    assert len(items(db, run)) == 4000
    assert fetched() - before > 800


# -- who may -------------------------------------------------------------------------------------------------


@contextmanager
def acting(db: Db) -> Iterator[None]:
    db.do(f"set local role {ROLE}")
    yield
    db.do("reset role")


@pytest.fixture
def two(db: Db) -> tuple[uuid.UUID, uuid.UUID]:
    """Runs of the flows r and other; a role that may do nothing."""
    db.do(f"create role {ROLE}")
    return ranges_run(db, [1, 2]), ranges_run(db, [3, 4, 5], slug="other")


def test_nobody_may_by_default_nor_as_a_client(db: Db, two: tuple[uuid.UUID, uuid.UUID]) -> None:
    for access in (None, "client"):
        if access:
            db.do("select pgflow.grant_access(%s, %s)", ROLE, access)
        with acting(db):
            assert db.refused("select * from pgflow.items").sqlstate == "42501"
            assert db.refused("select * from pgflow.item(%s, 'm', 0)", two[0]).sqlstate == "42501"


@pytest.mark.parametrize("access", ["starter", "operator", "worker"])
def test_every_other_access_sees_items_of_the_flows_that_it_may_use(
    db: Db, two: tuple[uuid.UUID, uuid.UUID], access: str
) -> None:
    count = "select count(*) from pgflow.items"
    one = "select count(*) from pgflow.item(%s, 'm', 0)"
    db.do("select pgflow.grant_access(%s, %s)", ROLE, access)
    with acting(db):
        assert (db.value(count), db.value(one, two[0]), db.value(one, two[1])) == (5, 1, 1)
    db.do("select pgflow.grant_access(%s, %s, array['r'])", ROLE, access)
    with acting(db):
        assert (db.value(count), db.value(one, two[0]), db.value(one, two[1])) == (2, 1, 0)
        assert db.refused("insert into pgflow.items (item_index) values (1)").sqlstate in ("42501", "55000")
    assert db.value(count) == 5


def test_a_limited_role_s_own_functions_see_nothing_of_others(
    db: Db, two: tuple[uuid.UUID, uuid.UUID]
) -> None:
    db.do("select pgflow.grant_access(%s, 'starter', array['r'])", ROLE)
    db.do(f"create schema mine authorization {ROLE}")
    db.do("create role pgflow_accomplice")
    with acting(db):
        db.do(
            "create function mine.look(slug text, input jsonb) returns boolean language plpgsql cost 0.0001"
            " as $$ begin if slug = 'other' then raise exception 'seen'; end if; return true; end $$"
        )
        assert db.value("select count(*) from pgflow.items where mine.look(flow_slug, input)") == 2
        db.do("create view mine.items as select * from pgflow.items")
        db.do("grant usage on schema mine to pgflow_accomplice")
        db.do("grant select on mine.items to pgflow_accomplice")
    db.do("set local role pgflow_accomplice")
    assert db.value("select count(*) from mine.items") == 0
    db.do("reset role")


def test_a_right_on_the_view_alone_is_enough(db: Db, two: tuple[uuid.UUID, uuid.UUID]) -> None:
    db.do(f"grant usage on schema pgflow to {ROLE}")
    db.do(f"grant select on pgflow.items to {ROLE}")
    db.do("create role pgflow_limited")
    db.do("select pgflow.grant_access('pgflow_limited', 'starter', array['r'])")
    with acting(db):
        assert db.value("select count(*) from pgflow.items") == 5
