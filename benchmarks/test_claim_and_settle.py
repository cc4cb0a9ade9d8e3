"""claim_tasks and complete_tasks, one round trip each."""

from __future__ import annotations

from collections.abc import Iterator

import drains
import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pgflow_mp.db import engine

ROUNDS = 10
Held = tuple[engine.Connection, str, str]


@pytest.fixture
def held(dsn: str) -> Iterator[Held]:
    """A run of 20,000 items: connection, worker id, run id."""
    conn, worker_id = drains.prepare(dsn)
    with conn:
        items = msgspec.json.encode(list(range(20_000)))
        yield conn, worker_id, engine.start_flow(conn, drains.FLOW, items)


@pytest.mark.benchmark(group="claim")
@pytest.mark.parametrize("batch", [1, 10, 100, 1_000])
def test_claim(benchmark: BenchmarkFixture, held: Held, batch: int) -> None:
    conn, worker_id, _ = held
    tasks = benchmark.pedantic(
        engine.claim_tasks, (conn, drains.FLOW, worker_id, batch), rounds=ROUNDS, warmup_rounds=6
    )
    assert len(tasks) == batch


@pytest.mark.benchmark(group="settle")
@pytest.mark.parametrize("batch", [1, 10, 100, 1_000])
def test_settle(benchmark: BenchmarkFixture, held: Held, batch: int) -> None:
    conn, worker_id, run_id = held

    def claimed() -> tuple[tuple[object, ...], dict[str, object]]:
        tasks = engine.claim_tasks(conn, drains.FLOW, worker_id, batch)
        return (conn, run_id, worker_id, tasks), {}

    settled = benchmark.pedantic(drains.settle, setup=claimed, rounds=ROUNDS, warmup_rounds=6)
    assert settled.accepted == batch
