"""What a claim of items in ranges gets when pages are missing or stale, and when it goes wrong half-way."""

from __future__ import annotations

import queue
from typing import Any, cast

import psycopg
from range_harness import Ranges, problems, start_in_ranges
from worker_harness import run_row, serve

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.item_ranges import ClaimedWork, ElementPage, ItemLease
from pgflow_mp.worker import inbox
from pgflow_mp.worker.claim import Claimer, make_ranges
from pgflow_mp.worker.heartbeat import Heartbeat
from pgflow_mp.worker.planner import ClaimRequest
from pgflow_mp.worker.ranges import gaps

WORKER = "11111111-1111-4111-8111-111111111111"
RUN = "22222222-2222-4222-8222-222222222222"
NOBODY: Any = None  # in place of a connection that is not asked


def page(page_id: int, first: int, items: int, word: bytes) -> ElementPage:
    return ElementPage(RUN, "s", first, items, page_id, b"[" + b",".join([word] * items) + b"]")


def test_pages_of_a_map_that_was_begun_anew_stand_in_place_of_those_that_were_kept() -> None:
    known = [page(1, 0, 10, b"1"), page(2, 10, 10, b"1"), page(3, 3, 5, b"1"), page(11, 20, 10, b"2")]
    sent = [page(9, 0, 5, b"2"), page(10, 5, 15, b"2")]
    work = ClaimedWork([], sent, [ItemLease(RUN, "s", 2, 26, 1, 5)])
    ranges = make_ranges(cast(Connection, NOBODY), "f", WORKER, work, known)
    (batch,) = ranges.batches
    assert [found.page_id for found in batch.pages] == [9, 10, 11]
    assert ranges.pageless == []
    assert [(s.first, s.count) for s in batch.chunk(1, 0, 26).segments] == [(2, 3), (0, 15)]


def test_gaps_are_the_items_that_lie_in_no_page() -> None:
    there = [page(1, 10, 10, b"1"), page(2, 30, 10, b"1")]
    assert gaps(there, 12, 18) == []
    assert gaps(there, 5, 45) == [(5, 10), (20, 30), (40, 45)]
    assert gaps(there, 22, 25) == [(22, 25)]
    assert gaps([], 0, 3) == [(0, 3)]


def _delete_elements(conn: psycopg.Connection[Any], run_id: str) -> None:
    found = conn.execute(
        "delete from pgflow.pages where run_id = %s and not is_result and first_index > 0 returning 1",
        (run_id,),
    )
    assert found.fetchall()


def test_items_whose_pages_somebody_has_deleted_fail_and_the_others_are_run(dsn: str) -> None:
    items = [["echo", "x" * 400]] * 3000
    run_id = start_in_ranges(dsn, "mischief", items, tolerated_failures=3000)
    with psycopg.connect(dsn, autocommit=True) as conn:
        _delete_elements(conn, run_id)
    serve(dsn, "mischief", run_id, compile="skip")
    assert run_row(dsn, run_id).status == "completed"
    found = Ranges(dsn, run_id, "act")
    first = min(found.tasks)
    assert set(found.tasks) == set(range(first, 3000))
    assert first > 0
    assert found.outputs == ["x" * 400] * first + [None] * (3000 - first)
    assert found.tasks[first] == (
        "failed",
        1,
        f'step "act" task {first}: its input is missing in the database (pgflow.pages)',
        None,
    )
    assert problems(dsn, run_id) == [f"act: items {{[{first},3000)}} have no element"]


def test_a_claim_that_went_wrong_after_it_was_made_is_told_as_lost(dsn: str) -> None:
    """Nobody else knows of its leases: they are free when its worker id is given up, not before."""
    run_id = start_in_ranges(dsn, "chain", [1, 2, 3])
    posted: queue.SimpleQueue[Any] = queue.SimpleQueue()
    steps = {"chain": ["double"]}
    claimer = Claimer(dsn, posted.put, worker_name="t", dead_after=10.0, lease=None, steps=steps)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("delete from pgflow.pages")
        conn.execute(
            "create or replace function "
            "pgflow.range_pages(run_id uuid, step_slug text, first_index int, items int) "
            "returns setof pgflow.claimed_work language plpgsql as $$begin raise 'corrupt'; end$$"
        )
    claimer.start()
    try:
        claimer.request(ClaimRequest("chain", "chain", WORKER, 2, 2))
        while isinstance(told := posted.get(timeout=10), inbox.ConnectionState):
            pass
    finally:
        claimer.stop()
        claimer.join(10)
        claimer.close()
    assert [lease[2] for lease in Ranges(dsn, run_id, "double").leases] == [WORKER]
    assert told == inbox.ClaimLost("chain", WORKER)


def test_every_run_of_which_maps_are_held_is_looked_at_in_its_turn(dsn: str) -> None:
    held: Any = None
    beat = Heartbeat(dsn, lambda _: None, interval=1.0, worker_ids=tuple, held=held, register=lambda *_: None)
    runs = {f"{i:036}" for i in range(120)}
    looks = [beat._next_of(runs) for _ in range(3)]
    assert max(map(len, looks)) == 50
    assert {run for look in looks for run in look} == runs
    assert len(beat._next_of({"1", "2"})) == 2
    assert beat._next_of(set()) == []
    beat.close()
