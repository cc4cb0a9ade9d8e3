"""Limits under real parallel claims: never more than so many, none withheld, no deadlock, no starvation."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from . import helpers
from .helpers import Db, complete, fail, flow, map_step, start
from .range_work import Claimed, claim_work, complete_parts, dies, fail_items, hired, ranges_flow, release
from .test_concurrency import arena
from .test_flow_limits import claimed, limit, size

__all__ = ["arena"]
WORKERS = [uuid.UUID(int=n) for n in range(1, 9)]
HELD = """
select (select count(*) from pgflow.step_tasks where status = 'started')
  + (select coalesce(sum(end_index - first_index), 0) from pgflow.ranges where worker_id is not null)
"""
ROUNDS = [pytest.param(1, id="short"), pytest.param(12, id="long", marks=pytest.mark.slow)]


class Gauge:
    """How many items all workers hold, as they see it: from after a claim to before it is settled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = 0

    def add(self, count: int) -> None:
        with self._lock:
            self.now += count
            self.most = max(self.most, self.now)


@contextmanager
def watched(dsn: str, counts: list[int]) -> Iterator[None]:
    """Counts what is held over and over, as the database shows it."""
    over = threading.Event()

    def watch() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not over.is_set():
                counts.append(Db(conn).value(HELD))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            over.set()
            watching.result(10)


def work(db: Db, worker: uuid.UUID, gauge: Gauge, rng: random.Random, runs: list[uuid.UUID]) -> int:
    """Claim and settle to the end, as a worker of now or of before, or one that reads the queue itself."""
    done, until = 0, time.monotonic() + 60
    while time.monotonic() < until:
        if rng.random() < 0.1:
            helpers.make_visible(db, "f")
        way = rng.random()
        if way < 0.5:
            found = claimed(db, rng.randint(0, 9), worker=worker)[0]
        elif way < 0.8:
            found = claim_work(db, worker=worker)
        else:
            found = Claimed(helpers.claim(db, "f", 5, worker), [], [])
        count = len(found.tasks) + found.items
        gauge.add(count)
        if count and rng.random() < 0.3:
            time.sleep(rng.random() / 200)
        gauge.add(-count)
        for task in found.tasks:
            (fail if rng.random() < 0.05 else complete)(
                db, task.run_id, task.step_slug, index=task.task_index
            )
        for lease in found.leases:
            part = (lease.lease_no, lease.first, 1)
            rest = (lease.lease_no, lease.first + 1, lease.items - 1)
            if rng.random() < 0.1:
                fail_items(
                    db, lease.run, [lease.first], lease_no=lease.lease_no, worker=worker, step=lease.step
                )
            else:
                complete_parts(db, lease.run, [part], worker=worker, step=lease.step)
            if rest[2] and rng.random() < 0.2:
                release(db, lease.run, [rest], worker=worker, step=lease.step)
            elif rest[2]:
                complete_parts(db, lease.run, [rest], worker=worker, step=lease.step)
        done += count
        if not count and not db.value(
            "select count(*) from pgflow.runs where run_id = any (%s) and status = 'started'", runs
        ):
            break
    return done


@pytest.mark.parametrize("rounds", ROUNDS)
def test_there_are_never_more_than_so_many_and_all_are_done(arena: Db, dsn: str, rounds: int) -> None:
    ranges_flow(arena, "f", map_step("m"), map_step("n"), tasks=["n"], max_attempts=50, base_delay=0)
    arena.do("select pgflow.set_step_policy('f', 'm', tolerated_share => 1)")
    for worker in WORKERS:
        hired(arena, "f", worker)
    for number in range(rounds):
        most = (7, 1, 20)[number % 3]
        arena.do("delete from pgflow.limits")
        limit(arena, at_once=most)
        if number % 2:
            limit(arena, step="m", at_once=max(1, most // 2))
        runs = [start(arena, "f", list(range(80))) for _ in range(2)]
        gauge, counts = Gauge(), list[int]()
        with watched(dsn, counts), ThreadPoolExecutor(len(WORKERS)) as pool:
            connections = [psycopg.connect(dsn, autocommit=True) for _ in WORKERS]
            jobs = [
                pool.submit(work, Db(conn), worker, gauge, random.Random(100 * number + n), runs)
                for n, (conn, worker) in enumerate(zip(connections, WORKERS, strict=True))
            ]
            done = [job.result(90) for job in jobs]
            for conn in connections:
                conn.close()
        assert arena.column("select distinct status from pgflow.runs where run_id = any (%s)", runs) == [
            "completed"
        ]
        assert 0 < gauge.most <= most
        assert max(counts) <= most
        assert most == 1 or (max(counts) > most / 2 and min(done) > 0)


def test_claims_of_other_flows_do_not_wait_for_those_of_a_flow_with_limits(arena: Db, dsn: str) -> None:
    for slug in ("f", "g"):
        flow(arena, slug, map_step("m"))
        hired(arena, slug, WORKERS[ord(slug) % 2])
        start(arena, slug, [1, 2, 3])
        limit(arena, slug, at_once=2)
    with psycopg.connect(dsn) as conn:
        assert size(claimed(Db(conn), worker=WORKERS[ord("f") % 2])) == 2
        with helpers.without_waiting(arena):
            assert size(claimed(arena, slug="g", worker=WORKERS[ord("g") % 2])) == 2
        begun = time.monotonic()
        assert size(claimed(arena, worker=WORKERS[ord("f") % 2])) == 0
        assert (
            0.4 < time.monotonic() - begun < 5
        )  # whoever keeps the limits locked holds up nobody for longer
        assert arena.value("show lock_timeout") == "0"
        conn.rollback()
    assert size(claimed(arena, worker=WORKERS[ord("f") % 2])) == 2


def test_an_older_view_admits_nobody(arena: Db, dsn: str) -> None:
    """A claim in a transaction that sees what was before the claims of others is refused."""
    flow(arena, "f", map_step("m"))
    hired(arena, "f", WORKERS[0])
    start(arena, "f", [1, 2, 3])
    limit(arena, at_once=2)
    with psycopg.connect(dsn) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.execute("select 1 from pgflow.runs")
        assert size(claimed(arena, worker=WORKERS[0])) == 2
        with pytest.raises(psycopg.errors.SerializationFailure):
            claimed(Db(conn), worker=WORKERS[0])


@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_a_limit_that_is_set_beside_claims_counts_them(arena: Db, dsn: str, storage: str) -> None:
    if storage == "ranges":
        ranges_flow(arena, "f", map_step("m"))
    else:
        flow(arena, "f", map_step("m"))
    hired(arena, "f", WORKERS[0])
    start(arena, "f", list(range(10)))
    with psycopg.connect(dsn) as conn:
        assert size(claimed(Db(conn), qty=4, items=4, worker=WORKERS[0])) == 4
        limit(arena, at_once=5)
        conn.commit()
    assert size(claimed(arena, worker=WORKERS[0])) == 1


def test_a_worker_that_dies_gives_back_what_it_had(arena: Db) -> None:
    ranges_flow(arena, "f", map_step("m"), map_step("n"), tasks=["n"])
    for worker in WORKERS[:2]:
        hired(arena, "f", worker)
    start(arena, "f", list(range(30)))
    limit(arena, at_once=6)
    assert size(claimed(arena, worker=WORKERS[0])) == 6
    assert size(claimed(arena, worker=WORKERS[1])) == 0
    assert dies(arena, WORKERS[0]) == 6
    assert size(claimed(arena, worker=WORKERS[1])) == 6


def test_rates_are_right_whoever_claims(arena: Db, dsn: str) -> None:
    flow(arena, "f", map_step("m"))
    for worker in WORKERS[:4]:
        hired(arena, "f", worker)
    start(arena, "f", list(range(2000)))
    limit(arena, rate=200.0, burst=200)  # so that a busy machine may claim seldom
    until = time.monotonic() + 1.0

    def take(worker: uuid.UUID) -> int:
        got = 0
        with psycopg.connect(dsn, autocommit=True) as conn:
            while time.monotonic() < until:
                got += size(claimed(Db(conn), worker=worker))
                time.sleep(0.01)
        return got

    begun = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        got: Any = sum(pool.map(take, WORKERS[:4]))
    taken = time.monotonic() - begun
    assert 200 * 0.9 <= got <= 200 + 200 * taken + 1
