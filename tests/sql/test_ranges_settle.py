"""Results of items in ranges, and items that are handed back: what is taken, and from whom."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from psycopg.types.json import Json

from .helpers import WORKER, Db, event, map_step, run_row, start, state, step
from .range_work import (
    OTHER,
    Part,
    assert_whole,
    claim_work,
    complete_parts,
    everything,
    fail_items,
    finish,
    mapped,
    parts_of,
    ranges,
    release,
    replace_limit,
    results,
)

PARTS: dict[str, tuple[Part, list[tuple[int, int]]]] = {
    "prefix": ((1, 10, 3), [(13, 20)]),
    "suffix": ((1, 17, 3), [(10, 17)]),
    "middle": ((1, 13, 4), [(10, 13), (17, 20)]),
    "whole": ((1, 10, 10), []),
    "one": ((1, 15, 1), [(10, 15), (16, 20)]),
}


@pytest.fixture
def run(db: Db) -> uuid.UUID:
    """Items 0 to 9 are OTHER's, 10 to 19 WORKER's, 20 to 29 nobody's yet, and a step depends on them."""
    run = mapped(db, 30, step("s", "m"))
    claim_work(db, 10, OTHER)
    claim_work(db, 10)
    return run


@pytest.mark.parametrize("part", PARTS)
def test_a_part_leaves_the_lease_and_becomes_a_page(db: Db, run: uuid.UUID, part: str) -> None:
    (lease_no, first, count), left = PARTS[part]
    settled = complete_parts(db, run, [(lease_no, first, count)])
    assert (settled.accepted, settled.rejected) == (count, [])
    assert (settled.step_status, settled.run_status) == ("started", "started")
    assert ranges(db, run) == [(0, 10, "O", 0), *((a, b, "W", 0) for a, b in left)]
    assert results(db, run) == {i: 10 * i for i in range(first, first + count)}
    page = db.row("select * from pgflow.pages where is_result and run_id = %s", run)
    assert (page.worker_id, page.leased_at <= page.written_at) == (WORKER, True)
    assert state(db, run, "m").remaining_tasks == 30 - count
    assert_whole(db, run)
    rest = [(1, a, b - a) for a, b in left]
    assert complete_parts(db, run, rest).accepted == 10 - count
    assert_whole(db, run)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_handed_back_is_free(db: Db, run: uuid.UUID, part: str) -> None:
    (lease_no, first, count), left = PARTS[part]
    assert release(db, run, [(lease_no, first, count)]) == count
    held = sorted([(first, first + count, None, 0), *((a, b, "W", 0) for a, b in left)])
    assert ranges(db, run) == [(0, 10, "O", 0), *held]
    assert_whole(db, run)
    assert release(db, run, [(lease_no, first, count)]) == 0
    assert complete_parts(db, run, [(lease_no, first, count)]).accepted == 0
    assert_whole(db, run)


LATE: dict[str, Part] = {
    "the first item is another worker's": (1, 9, 2),
    "the last item is nobody's yet": (1, 19, 2),
    "another worker's": (1, 0, 10),
    "nobody's yet": (1, 20, 5),
    "another lease's": (2, 10, 10),
    "no lease's": (0, 10, 10),
    "beyond the end": (1, 100, 1),
    "none": (1, 12, 0),
    "less than none": (1, 15, -3),
    "before the first": (1, -5, 3),
    "the largest numbers": (1, 2_147_483_647, 2_147_483_647),
    "the smallest numbers": (1, -2_147_483_648, -2_147_483_648),
    "all that there can be": (1, 10, 2_147_483_647),
}


@pytest.mark.parametrize("why", LATE)
def test_what_the_lease_does_not_hold_is_refused_and_the_rest_is_taken(
    db: Db, run: uuid.UUID, why: str
) -> None:
    before = everything(db, run)
    late = LATE[why]
    settled = complete_parts(db, run, [late], [[1]])
    assert (settled.accepted, settled.rejected) == (0, [late[1]])
    assert release(db, run, [late]) == 0
    if late[2] > 0:
        assert fail_items(db, run, [9, 20, 2_147_483_647], lease_no=late[0]).accepted == 0
    assert everything(db, run) == before
    settled = complete_parts(db, run, [(1, 12, 2), late, (1, 15, 1)], [[1, 2], [1], [3]])
    assert (settled.accepted, settled.rejected) == (3, [late[1]])
    assert results(db, run) == {12: 1, 13: 2, 15: 3}
    assert_whole(db, run)


@pytest.mark.parametrize("worker", [None, OTHER, uuid.UUID(int=9)])
def test_nobody_else_settles_a_worker_s_items(db: Db, run: uuid.UUID, worker: uuid.UUID | None) -> None:
    release(db, run, [(1, 18, 2)])
    before = everything(db, run)
    assert complete_parts(db, run, [(1, 10, 5), (1, 18, 2), (2, 18, 2)], worker=worker).accepted == 0
    assert fail_items(db, run, [10, 18], worker=worker).accepted == 0
    assert everything(db, run) == before


def test_a_call_that_is_repeated_changes_nothing(db: Db, run: uuid.UUID) -> None:
    parts = [(1, 10, 3), (1, 15, 2)]
    assert complete_parts(db, run, parts).accepted == 5
    assert fail_items(db, run, [13]).accepted == 1
    before = everything(db, run)
    settled = complete_parts(db, run, parts)
    assert (settled.accepted, settled.rejected) == (0, [10, 15])
    assert fail_items(db, run, [13, 10]).rejected == [13, 10]
    assert everything(db, run) == before


def test_parts_that_overlap_are_taken_once(db: Db, run: uuid.UUID) -> None:
    settled = complete_parts(db, run, [(1, 12, 4), (1, 14, 4), (1, 12, 4), (1, 10, 10), (1, 16, 2)])
    assert (settled.accepted, settled.rejected) == (6, [14, 12, 10])
    assert_whole(db, run)
    assert release(db, run, [(1, 18, 2), (1, 18, 1), (1, 10, 3), (1, 10, 2)]) == 4
    assert fail_items(db, run, [11, 11, 12]).rejected == [11, 11, 12]
    assert_whole(db, run)


def test_a_lease_that_was_handed_back_and_leased_again_is_another(db: Db, run: uuid.UUID) -> None:
    release(db, run, [(1, 10, 10)])
    assert [x.bounds for x in claim_work(db, 4).leases] == [(10, 14)]
    assert complete_parts(db, run, [(1, 10, 4)]).accepted == 0
    assert [(x.bounds, x.lease_no) for x in claim_work(db, 6).leases] == [((14, 20), 2)]
    assert complete_parts(db, run, [(1, 14, 2)]).accepted == 0
    assert complete_parts(db, run, [(2, 10, 4), (2, 14, 6)]).accepted == 10
    assert_whole(db, run)


@pytest.mark.parametrize(
    "outputs", [[1], [1, 2, 3], {"a": 1}, 7, None, "[1, 2]", []], ids=["few", "many", *"abcde"]
)
def test_a_part_without_an_output_for_each_item_is_refused_as_a_whole(
    db: Db, run: uuid.UUID, outputs: Any
) -> None:
    before = everything(db, run)
    refused = db.refused(
        "select pgflow.complete_ranges(%s, 'm', %s, '{1,1}', '{10,12}', '{2,2}', %s::jsonb[])",
        *(run, WORKER, [Json([1, 2]), Json(outputs)]),
    )
    assert (refused.sqlstate, 'items 12 to 13 of step "m"' in refused.message) == ("22023", True)
    nothing = "select pgflow.complete_ranges(%s, 'm', %s, '{1}', '{12}', '{2}', array[null]::jsonb[])"
    assert db.refused(nothing, run, WORKER).sqlstate == "22023"
    assert everything(db, run) == before


CALLS = {
    "complete": "select (pgflow.complete_ranges({run}, 'm', {worker}, {0}::int[], {1}::int[], {2}::int[],"
    " {3}::jsonb[])).accepted",
    "release": "select pgflow.release_ranges({run}, 'm', {worker}, {0}::int[], {1}::int[], {2}::int[])",
    "fail": "select (pgflow.fail_range_items({run}, 'm', {worker}, {0}::int[], {1}::int[], {2}::text[],"
    " {3}::bool[])).accepted",
}
HOSTILE = {
    "shorter": (["'{1}'", "'{10,11}'", "'{1,1}'", "null"], "22023"),
    "longer": (["'{1,1,1}'", "'{10,11}'", "'{1,1}'", "null"], "22023"),
    "missing": (["'{1}'", "'{10}'", "null", "null"], "22023"),
    "two dimensions": (["'{{1},{1}}'", "'{{10},{11}}'", "'{{1},{1}}'", "null"], "22023"),
    "from zero": (["'[0:1]={1,1}'", "'[0:1]={10,11}'", "'[0:1]={1,1}'", "null"], "22023"),
    "empty": (["'{}'", "'{}'", "'{}'", "'{}'"], ""),
    "null": (["null", "null", "null", "null"], ""),
    "of nulls": (["'{null,1}'", "'{10,null}'", "'{null,1}'", "'{null,null}'"], ""),
}


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("call", CALLS)
def test_arrays_that_do_not_belong_together_do_nothing(db: Db, run: uuid.UUID, call: str, how: str) -> None:
    arrays, sqlstate = HOSTILE[how]
    arrays = list(arrays)
    if arrays[3] == "null" and call == "complete" and how not in ("null", "missing"):
        arrays[3] = arrays[0].replace("1", "null").replace("[0:null]", "[0:1]")
    query = CALLS[call].format(*arrays, run=f"'{run}'", worker=f"'{WORKER}'")
    before = everything(db, run)
    if sqlstate:
        assert db.refused(query).sqlstate == sqlstate
    else:
        assert db.value(query) == 0
    assert everything(db, run) == before


def test_what_is_no_map_in_ranges_has_nothing_to_settle(db: Db, run: uuid.UUID) -> None:
    other = start(db, "f", [1])
    part = (1, 0, 1)
    cases: list[tuple[uuid.UUID, str, tuple[str | None, str | None]]] = [
        (run, "s", ("created", "started")),
        (run, "no", (None, "started")),
        (other, "m", ("started", "started")),
        (uuid.UUID(int=3), "m", (None, None)),
    ]
    for run_id, slug, statuses in cases:
        settled = complete_parts(db, run_id, [part], step=slug)
        assert (settled.accepted, settled.rejected) == (0, [0])
        assert (settled.step_status, settled.run_status) == statuses
        failed = fail_items(db, run_id, [0], step=slug)
        assert (failed.accepted, failed.rejected, failed.run_status) == (0, [0], statuses[1])
        assert release(db, run_id, [part], step=slug) == 0


# -- the end of the map ------------------------------------------------------------------------------------


def test_the_last_item_completes_the_map_and_starts_what_depends_on_it(db: Db, run: uuid.UUID) -> None:
    finish(db, *claim_work(db, 10, OTHER).leases, worker=OTHER)
    assert complete_parts(db, run, [(1, 0, 10)], worker=OTHER).step_status == "started"
    settled = complete_parts(db, run, [(1, 15, 5), (1, 10, 5)])
    assert (settled.accepted, settled.step_status, settled.run_status) == (10, "completed", "started")
    assert state(db, run, "m").output == [10 * i for i in range(30)]
    assert event(db, run, "step:completed", "m")["output"] == [10 * i for i in range(30)]
    assert ranges(db, run) == []
    assert not db.value("select is_open from pgflow.range_maps where run_id = %s", run)
    (task,) = claim_work(db).tasks
    assert task.input == {"m": [10 * i for i in range(30)]}
    late = complete_parts(db, run, [(1, 10, 5)])
    assert (late.accepted, late.step_status) == (0, "completed")


def test_a_leaf_is_in_the_output_of_its_run_and_not_in_its_state(db: Db) -> None:
    run = mapped(db, 5)
    finish(db, *claim_work(db).leases)
    assert state(db, run, "m").output_is_null
    assert run_row(db, run).output == {"m": [0, 10, 20, 30, 40]}
    told = event(db, run, "run:completed")
    assert told["output"] == {"m": [0, 10, 20, 30, 40]}


def test_outputs_of_any_kind_are_kept_as_they_are(db: Db) -> None:
    run = mapped(db, 7)
    outputs: list[Any] = [None, {"b": 1, "a": [{}]}, [], '\u2603 \\ "', 1.50, -0.0, True]
    assert complete_parts(db, run, parts_of(*claim_work(db).leases), [outputs]).accepted == 7
    assert run_row(db, run).output == {"m": outputs}


def test_what_passes_the_limit_of_json_is_named_in_the_output_of_the_run(db: Db) -> None:
    run = mapped(db, 40, map_step("n", "m"), map_step("k"), step("s", "k"))
    replace_limit(db, "_largest_json", 3000)
    for lease in claim_work(db).leases:
        output = "x" * (10 if lease.step == "m" else 100)
        complete_parts(db, run, parts_of(lease), [[output] * 40], step=lease.step)
    assert state(db, run, "k").output_is_null
    claimed = claim_work(db)
    assert [(t.step_slug, t.input) for t in claimed.tasks] == [("s", None)]  # it fails: too large an input
    complete_parts(db, run, parts_of(*claimed.leases), [["y" * 100] * 40], step="n")
    db.do("select pgflow.complete_task(%s, 's', 0, '1')", run)
    assert run_row(db, run).output == {"n": None, "s": 1}
    assert len(results(db, run, "n")) == 40
