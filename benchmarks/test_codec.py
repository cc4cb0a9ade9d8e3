"""What is done to bytes between the database and the lanes."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.adapt import PyFormat
from pytest_benchmark.fixture import BenchmarkFixture

from pgflow_mp.db import wire
from pgflow_mp.executors import messages

pytestmark = pytest.mark.benchmark(group="codec")
SIZES = pytest.mark.parametrize("size", [10, 1_000, 10_000], ids=["10 B", "1 KB", "10 KB"])
COUNT = 500


@SIZES
def test_encode_a_chunk(benchmark: BenchmarkFixture, size: int) -> None:
    items = [messages.Item(i, 1, i, 0, 0, b"x" * size, None) for i in range(COUNT)]
    chunk = messages.Chunk(1, "flow", ["run"], ["step"], items)
    assert len(benchmark(messages.encode, chunk)) > COUNT * size


@SIZES
def test_decode_outcomes(benchmark: BenchmarkFixture, size: int) -> None:
    outcomes = [messages.Outcome(i, 0, b"x" * size, 0.001) for i in range(COUNT)]
    data = messages.encode(outcomes)
    assert benchmark(messages.decode_outcomes, data) == outcomes


@SIZES
def test_dump_results(benchmark: BenchmarkFixture, dsn: str, size: int) -> None:
    with psycopg.connect(dsn) as conn:
        wire.adapt(conn)
        values = wire.RawJsonArray([b'"' + b"x" * size + b'"'] * COUNT)
        dumper = conn.adapters.get_dumper(wire.RawJsonArray, PyFormat.AUTO)(wire.RawJsonArray, conn)
        assert benchmark(dumper.dump, values)


@SIZES
def test_fetch_inputs(benchmark: BenchmarkFixture, dsn: str, size: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        wire.adapt(conn)
        query = "select to_jsonb(repeat('x', %s)) from generate_series(1, %s)"
        rows = benchmark(lambda: conn.execute(query, (size, COUNT), binary=True).fetchall())
        assert len(rows) == COUNT
