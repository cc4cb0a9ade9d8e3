"""Whole runs through a worker that is warm."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pgflow_mp.bench.stage import Stage
from pgflow_mp.flows.options import STORAGES

pytestmark = pytest.mark.benchmark(group="end to end")


@pytest.mark.parametrize("count", [1, 100, 10_000])
@pytest.mark.parametrize("flow", ["bench_map", "bench_map_map_single"])
@pytest.mark.parametrize("storage", STORAGES)
def test_no_op_run(benchmark: BenchmarkFixture, stage: Stage, storage: str, flow: str, count: int) -> None:
    items = list(range(count))
    with stage.arena(flow, storage=storage) as arena:
        arena.warm_up(flow, list(range(200)))
        timing = benchmark.pedantic(arena.run, (flow, items), rounds=5)
    benchmark.extra_info["items"] = count
    assert timing.total > 0
