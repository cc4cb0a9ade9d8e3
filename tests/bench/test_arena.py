"""The stage of the benchmark with a real worker."""

from __future__ import annotations

import pytest
from database_server import DatabaseServer

from pgflow_mp.bench.stage import Stage
from pgflow_mp.errors import PgflowError


@pytest.mark.slow
def test_a_worker_that_ends_ends_the_benchmark_with_its_status(server: DatabaseServer) -> None:
    stage = Stage(server.dsn, 1, True, 1e7, print)
    with stage.arena("bench_map", lanes=1) as arena:
        assert arena.run("bench_map", [1, 2, 3]).total < 60
        arena.workers[0].process.kill()
        with pytest.raises(PgflowError, match=r"A worker of the benchmark ended with -9"):
            arena.run("bench_map", [1, 2, 3])


@pytest.mark.slow
def test_a_worker_tells_what_its_parent_spends_its_time_on(server: DatabaseServer) -> None:
    stage = Stage(server.dsn, 1, True, 1e7, print)
    with stage.arena("bench_map", lanes=1) as arena:
        before = arena.workers[0].threads()
        arena.run("bench_map", list(range(2000)))
        after = arena.workers[0].threads()
        spent = {purpose: after[purpose] - before[purpose] for purpose in after}
        for purpose in ("main loop", "claiming", "settling", "executors of the lanes"):
            assert 0 < spent[purpose] < sum(spent.values())
