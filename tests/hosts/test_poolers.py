"""Several workers behind PgBouncer share a run, in both of its modes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from poolers import pooled
from range_harness import problems, start_in_ranges
from worker_harness import eventually, lines, output, process, run_row, start


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["tasks", "ranges"])
@pytest.mark.parametrize(("mode", "size"), [("transaction", 3), ("session", 10)])
def test_workers_behind_a_pooler_share_a_run(
    dsn: str, log: Path, tmp_path: Path, mode: str, size: int, storage: str
) -> None:
    folder = tmp_path / "pooler"
    folder.mkdir()
    with pooled(dsn, folder, mode, size) as through:
        run_id = (start if storage == "tasks" else start_in_ranges)(through, "naps", [0.02] * 300)
        workers = [process(through, "naps", run_id) for _ in range(2)]
        eventually(lambda: run_row(dsn, run_id).status != "started", 60)
        reports = [json.loads(worker.communicate(timeout=30)[0].splitlines()[-1]) for worker in workers]
        with psycopg.connect(dsn) as conn:
            served = conn.execute("select count(distinct worker_id) from pgflow.workers").fetchone()
    assert served == (2,)
    assert min(report["done"] for report in reports) > 50
    assert output(dsn, run_id) == {"count": 300}
    assert problems(dsn, run_id) == []
    assert max(Counter(lines(log, "end")).values()) == 1
