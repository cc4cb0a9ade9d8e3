"""start_flow: making tasks from an array."""

from __future__ import annotations

import drains
import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pgflow_mp.db import engine

pytestmark = pytest.mark.benchmark(group="spawn")


@pytest.mark.parametrize("count", [100, 1_000, 20_000])
@pytest.mark.parametrize("payload", [b"1", b'"' + b"x" * 1000 + b'"'], ids=["integer", "1 KB"])
def test_start_flow(benchmark: BenchmarkFixture, dsn: str, count: int, payload: bytes) -> None:
    conn, _ = drains.prepare(dsn)
    given = b"[" + b",".join([payload] * count) + b"]"
    with conn:
        benchmark.pedantic(engine.start_flow, (conn, drains.FLOW, given), rounds=5, warmup_rounds=1)
        benchmark.extra_info["items"] = count
        benchmark.extra_info["bytes"] = len(msgspec.Raw(given))
