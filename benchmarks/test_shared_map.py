"""Connections that claim and complete of one map, where a commit takes 3 ms as on a disk in a network."""

from __future__ import annotations

import threading
import time
import uuid

import msgspec
import pytest

from pgflow_mp.bench import stored
from pgflow_mp.bench.arena import connected
from pgflow_mp.bench.measure import interleave, ratio
from pgflow_mp.bench.stage import Stage
from pgflow_mp.db import engine, item_ranges, settling

FLOW = "bench_map"
LEASE = 100
ITEMS = 20_000
CONNECTIONS = 4


def drain(dsn: str, *, early: bool) -> float:
    """Seconds that the connections need for a map together."""
    conns = [connected(dsn) for _ in range(CONNECTIONS)]
    run_id = engine.start_flow(conns[0], FLOW, msgspec.json.encode([1] * ITEMS))
    barrier = threading.Barrier(CONNECTIONS + 1)

    def work(conn: engine.Connection) -> None:
        worker_id = str(uuid.uuid4())
        engine.register_worker(conn, worker_id, FLOW, "benchmark", dead_after=3600)
        conn.execute("set commit_delay = 3000")  # microseconds, with the locks of the transaction
        conn.execute("set commit_siblings = 0")
        known: list[int] = []
        barrier.wait()
        while leases := (
            got := item_ranges.claim_work(conn, FLOW, worker_id, 0, LEASE, known, early=early)
        ).leases:
            known += [page.page_id for page in got.pages]
            for lease in leases:
                outputs = b"[" + b",".join([b"1"] * lease.items) + b"]"
                part = [lease.lease_no], [lease.first_index], [lease.items], [outputs]
                call = item_ranges.RangeCompletion(run_id, lease.step_slug, worker_id, *part)
                settling.settle(conn, [call], early=early)

    threads = [threading.Thread(target=work, args=(conn,)) for conn in conns]
    for thread in threads:
        thread.start()
    barrier.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if engine.run_status(conns[0], run_id) != "completed":
        raise RuntimeError("the run has not completed")
    for conn in conns:
        conn.close()
    return seconds


@pytest.mark.benchmark
def test_connections_that_release_locks_early_drain_a_map_sooner(stage: Stage, dsn: str) -> None:
    with connected(dsn) as conn:
        stored.store(conn, [FLOW], stored.RANGES)
    seconds = interleave(
        {"early": lambda: drain(dsn, early=True), "late": lambda: drain(dsn, early=False)}, 3
    )
    found = ratio(seconds["late"], seconds["early"])
    print(f"{CONNECTIONS} connections on one map: {found.median:.2f} times as fast")
    assert found.median >= 1.3
