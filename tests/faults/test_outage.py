"""An outage longer than any worker may be silent: nobody is dead for it, and nothing is computed twice."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tcp_proxy import TcpProxy
from worker_harness import eventually, output, settings, start, threaded

from pgflow_mp.testing import audit_run
from pgflow_mp.worker.worker import Worker

QUICK: Any = {"heartbeat_interval": 0.5, "dead_after": 3.0, "visibility_timeout": 4}
ITEMS = 900


def check(dsn: str, run_id: str, log: Path, workers: list[Worker]) -> None:
    """Every item was executed once and recorded once."""
    assert output(dsn, run_id) == {"count": ITEMS}
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []
    assert [worker.stats.late for worker in workers] == [0] * len(workers)
    counts = Counter(line for line in log.read_text().splitlines() if line.startswith("end"))
    assert (len(counts), sum(counts.values())) == (ITEMS, ITEMS)


@pytest.mark.slow
def test_three_workers_cut_off_for_longer_than_dead_after_lose_nothing(dsn: str, log: Path) -> None:
    """The one that is back first must not take the others for dead, nor itself."""
    run_id = start(dsn, "naps", [0.02] * ITEMS)
    with ExitStack() as stack:
        proxies = [stack.enter_context(TcpProxy(dsn)) for _ in range(3)]
        workers = [Worker(settings(proxy.dsn, "naps", **QUICK)) for proxy in proxies]
        running = [stack.enter_context(threaded(worker, run_id=run_id)) for worker in workers]
        eventually(lambda: all(worker.stats.done >= 40 for worker in workers), 30)
        for proxy in proxies:
            proxy.mode = "refuse"
            proxy.cut()
        time.sleep(9.0)
        for proxy in proxies:
            proxy.mode = "pass"
            time.sleep(0.7)
        for thread in running:
            thread.join(60)
    check(dsn, run_id, log, workers)
