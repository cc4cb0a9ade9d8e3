"""Recording parts of ranges: refused items fail alone, what is recorded already is known, nothing is lost."""

from __future__ import annotations

from typing import Any

import psycopg
from range_harness import Ranges, start_in_ranges
from settle_harness import WORKER, running
from worker_harness import adapted, eventually

from pgflow_mp.db import engine, item_ranges
from pgflow_mp.db.item_ranges import ItemLease, RangeCompletion, RangeFailure
from pgflow_mp.db.settling import Call
from pgflow_mp.worker import inbox
from pgflow_mp.worker.range_groups import RangeFailures, RangeGroup, RangePart
from pgflow_mp.worker.recording import Recorder
from pgflow_mp.worker.releases import RangeRelease


def leased(dsn: str, items: int) -> tuple[str, ItemLease]:
    """A run, all of whose items WORKER holds by one lease."""
    run_id = start_in_ranges(dsn, "chain", list(range(items)))
    with adapted(dsn) as conn:
        engine.register_worker(conn, WORKER, "chain", "test", 60.0)
        work = item_ranges.claim_work(conn, "chain", WORKER, 10, items, [])
        (lease,) = work.leases
        assert [page.items for page in work.pages] == [items]
        assert item_ranges.range_pages(conn, run_id, "double", 0, items) == work.pages
    assert (work.tasks, lease.run_id, lease.first_index, lease.items) == ([], run_id, 0, items)
    return run_id, lease


def part(lease: ItemLease, first: int, values: list[bytes], number: int = 1) -> RangePart:
    body = b",".join(values)
    return RangePart(number, lease.lease_no, first, len(values), [body], len(body))


def completion(run_id: str, lease: ItemLease, first: int, values: list[bytes]) -> RangeCompletion:
    body = b"[" + b",".join(values) + b"]"
    return RangeCompletion(run_id, "double", WORKER, [lease.lease_no], [first], [len(values)], [body])


def refuse(dsn: str) -> None:
    """Have the database refuse an output."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("alter table pgflow.pages add check (not (is_result and body @> '[666]'))")


def record(dsn: str, calls: list[Call], *, replayed: bool) -> list[inbox.SettledCall]:
    with adapted(dsn) as conn:
        return Recorder(lambda _: None, lambda: None).settle(conn, calls, [], replayed=replayed)


def test_parts_are_joined_recorded_and_what_is_left_is_handed_back(dsn: str) -> None:
    run_id, lease = leased(dsn, 100)
    with running(dsn) as settler:
        parts = [part(lease, at, [b"1"] * 10) for at in (20, 0, 10)]
        settler.settler.add([RangeGroup(run_id, "double", WORKER, parts)], 60)
        failed = RangeFailures(run_id, "double", WORKER, [lease.lease_no], [40], [b"no"], [False])
        settler.settler.add([failed], 2)
        calls: list[inbox.SettledCall] = []
        while len(calls) < 2:
            calls += settler.next().calls
        assert [(call.failures, call.result.accepted, call.late) for call in calls] == [
            (False, 30, 0),
            (True, 1, 0),
        ]
        counts = [1] * 2, [30, 41], [10, 59]
        settler.settler.release(RangeRelease("chain", run_id, "double", WORKER, *counts))
        eventually(lambda: settler.settler.released == 69)
    found = Ranges(dsn, run_id, "double")
    assert [row[:2] for row in found.pages] == [(0, 30)]
    assert found.tasks[40][:2] == ("queued", 1)
    assert [row[:3] for row in found.leases] == [(30, 40, None), (41, 100, None)]


def test_one_output_that_the_database_refuses_fails_alone_out_of_thousands(dsn: str) -> None:
    run_id, lease = leased(dsn, 3000)
    refuse(dsn)
    values = [b"1"] * 3000
    values[1234] = b"666"
    with running(dsn) as settler:
        settler.settler.add([RangeGroup(run_id, "double", WORKER, [part(lease, 0, values)])], 6000)
        batch = settler.next(timeout=30)
        assert sum(call.result.accepted for call in batch.calls) == 3000
    found = Ranges(dsn, run_id, "double")
    assert sum(row[1] for row in found.pages) == 2999
    assert 'refuses the output of step "double" task 1234' in (found.tasks[1234][2] or "")
    assert found.tasks[1234][:2] == ("failed", 1)


def test_a_part_that_is_recorded_already_counts_and_one_that_is_lost_is_late(dsn: str) -> None:
    run_id, lease = leased(dsn, 100)
    first, second = (completion(run_id, lease, at, [b"1"] * 10) for at in (0, 10))
    failure = RangeFailure(run_id, "double", WORKER, [lease.lease_no], [20], ["no"], [False])
    assert [call.result.accepted for call in record(dsn, [first, failure], replayed=False)] == [10, 1]
    again = record(dsn, [first, failure], replayed=True)
    assert [(call.result.accepted, call.late, list(call.lost)) for call in again] == [(10, 0, []), (1, 0, [])]
    with adapted(dsn) as conn:
        assert item_ranges.release_ranges(conn, run_id, "double", WORKER, [lease.lease_no], [10], [5]) == 5
    (late,) = record(dsn, [second], replayed=True)
    assert (late.result.accepted, late.late, list(late.lost)) == (0, 10, [10])


def test_pieces_of_a_part_that_was_cut_before_the_connection_was_lost_are_recorded(dsn: str) -> None:
    """A part with an output that is refused is tried in halves; the first was recorded, then came the cut."""
    run_id, lease = leased(dsn, 100)
    values = [str(i).encode() for i in range(100)]
    record(dsn, [completion(run_id, lease, 0, values[:50])], replayed=False)
    record(dsn, [completion(run_id, lease, 60, values[60:70])], replayed=False)
    calls: list[Any] = [completion(run_id, lease, 0, values)]
    done = record(dsn, calls, replayed=True)
    assert sum(call.result.accepted for call in done) == 100
    assert sum(call.late for call in done) == 0
    assert Ranges(dsn, run_id, "double").outputs == list(range(100))
