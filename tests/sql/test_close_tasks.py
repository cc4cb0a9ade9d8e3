"""Tasks that lie close together are found in one walk along an index, with the answers that look-ups give."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from worker_harness import eventually

from .helpers import WORKER, Db, Row, flow, map_step, queue, start, start_tasks, task_statuses, tasks, worker
from .test_concurrency import Crew, arena, crew, open_transaction

__all__ = ["arena", "crew", "open_transaction"]
OTHER = uuid.UUID("22222222-2222-2222-2222-222222222222")
MOST = 2**63 - 1


@pytest.fixture
def run(db: Db) -> uuid.UUID:
    """A run of 200 tasks, whose messages have the ids from 1 on, and two workers."""
    for who in (WORKER, OTHER):
        worker(db, "f", who)
    return start(db, flow(db, "f", map_step("m")), list(range(200)))


def claimed(rows: Sequence[Row]) -> list[int]:
    return sorted(row.task_index for row in rows)


def record(
    db: Db,
    run: uuid.UUID,
    indexes: Sequence[int],
    *,
    attempts: Sequence[int] | None = None,
    ids: Sequence[int | None] | None = None,
    by: uuid.UUID | None = WORKER,
) -> Row:
    """Record ten times its index as the output of each task."""
    return db.row(
        "select * from pgflow.complete_tasks(%s, 'm', %s::int[], %s::jsonb[], %s, %s::int[], %s::bigint[])",
        run,
        list(indexes),
        [Jsonb(10 * index) for index in indexes],
        by,
        list(attempts or [1] * len(indexes)),
        None if ids is None else list(ids),
    )


def scans(db: Db, index: str) -> int:
    """How often an index was looked into by this transaction."""
    found: int = db.value("select pg_stat_get_xact_numscans(%s::regclass)", f"pgflow.{index}")
    return found


@pytest.mark.parametrize("statistics", ["none", "of an empty table", "of these tasks", "of very many"])
def test_one_walk_whatever_the_statistics_say(db: Db, statistics: str) -> None:
    worker(db, "f")
    flow(db, "f", map_step("m"))
    if statistics == "of an empty table":
        db.do("analyze pgflow.step_tasks")
    run = start(db, "f", list(range(200)))
    if statistics == "of these tasks":
        db.do("analyze pgflow.step_tasks")
    if statistics == "of very many":
        db.do(
            "update pg_class set reltuples = 1e8, relpages = 4000000"
            " where oid = 'pgflow.step_tasks'::regclass"
        )
    walked, looked_up = scans(db, "idx_step_tasks_queue_message"), scans(db, "step_tasks_pkey")
    rows = db.rows("select * from pgflow.claim_tasks('f', %s, 100)", WORKER)
    assert claimed(rows) == list(range(100))
    assert scans(db, "idx_step_tasks_queue_message") - walked <= 2
    record(db, run, range(100))
    assert scans(db, "step_tasks_pkey") - looked_up <= 2
    assert task_statuses(db, run, "m") == ["completed"] * 100 + ["queued"] * 100


@pytest.mark.parametrize("step", [1, 2, 3, 9])
def test_what_lies_between_is_left_alone(db: Db, run: uuid.UUID, step: int) -> None:
    indexes = list(range(3, 200, step))
    rows = start_tasks(db, "f", [index + 1 for index in indexes])
    assert claimed(rows) == indexes
    expected = ["started" if index in indexes else "queued" for index in range(200)]
    assert task_statuses(db, run, "m") == expected
    start_tasks(db, "f", [index + 1 for index in range(200) if index not in indexes], OTHER)
    random.Random(step).shuffle(indexes)
    found = record(db, run, indexes)
    assert (found.accepted, found.rejected) == (len(indexes), [])
    for row in tasks(db, run):
        mine = row.task_index in indexes
        assert (row.status, row.output) == (("completed", 10 * row.task_index) if mine else ("started", None))
    assert [index for _, index in queue(db, "f")] == [i for i in range(200) if i not in indexes]


def test_ids_may_be_in_any_order_twice_unknown_missing_and_as_far_apart_as_can_be(
    db: Db, run: uuid.UUID
) -> None:
    ids: list[Any] = [*range(40, 0, -1), *range(1, 41), None, 5000]
    assert claimed(start_tasks(db, "f", ids)) == list(range(40))
    assert {row.attempts_count for row in tasks(db, run)[:40]} == {1}
    assert start_tasks(db, "f", ids) == []
    far = [*range(41, 101), -MOST - 1, MOST]
    assert claimed(start_tasks(db, "f", far)) == list(range(40, 100))
    assert start_tasks(db, "f", [MOST - n for n in range(60)]) == []
    assert start_tasks(db, "f", [n - MOST for n in range(60)]) == []


def test_stale_results_among_close_ones_are_refused_and_all_others_taken(db: Db, run: uuid.UUID) -> None:
    start_tasks(db, "f", range(1, 101))
    start_tasks(db, "f", range(101, 121), OTHER)
    indexes = list(range(120))
    attempts = [2 if index == 7 else 1 for index in indexes]
    ids = [500 if index == 9 else None if index == 10 else index + 1 for index in indexes]
    found = record(db, run, indexes, attempts=attempts, ids=ids)
    assert found.accepted == 98
    assert sorted(found.rejected) == [7, 9, *range(100, 120)]
    assert [row.output for row in tasks(db, run)[:12]] == [
        0,
        10,
        20,
        30,
        40,
        50,
        60,
        None,
        80,
        None,
        100,
        110,
    ]
    found = record(db, run, [*range(100, 120), *range(100, 120), 9], by=None)
    assert sorted(set(found.rejected)) == []
    assert [row.output for row in tasks(db, run)[100:121]] == [*range(1000, 1200, 10), None]


def test_what_somebody_has_locked_is_left_to_them(arena: Db, open_transaction: Db) -> None:
    run = start(arena, flow(arena, "f", map_step("m")), list(range(60)))
    open_transaction.do("select 1 from pgflow.step_tasks where task_index in (5, 30) for update")
    rows = start_tasks(arena, "f", range(1, 61))
    assert claimed(rows) == [index for index in range(60) if index not in (5, 30)]
    open_transaction.do("rollback")
    assert claimed(start_tasks(arena, "f", range(1, 61))) == [5, 30]
    assert task_statuses(arena, run, "m") == ["started"] * 60


def test_results_of_tasks_whose_leases_are_extended_meanwhile_are_taken(
    arena: Db, crew: Crew, open_transaction: Db
) -> None:
    run = start(arena, flow(arena, "f", map_step("m")), list(range(100)))
    start_tasks(arena, "f", range(1, 101))
    open_transaction.do("update pgflow.step_tasks set lease_until = now() where task_index in (3, 50)")
    recorded = crew.threads.submit(record, Db(crew.connections[0]), run, [*range(99, -1, -1)])
    eventually(lambda: arena.value("select count(*) from pg_locks where not granted") > 0)
    open_transaction.do("commit")
    assert recorded.result(60).accepted == 100
    assert [row.output for row in tasks(arena, run)] == [*range(0, 1000, 10)]
    assert queue(arena, "f") == []
