"""The numbers of reports are those of the rows, in either storage, whatever happens to a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from played_run import Played, counted
from worker_harness import adapted

from pgflow_mp.db.engine import Connection
from pgflow_mp.observe.read_reports import read_items, read_run, read_runs
from pgflow_mp.observe.run_reports import ItemCounts, total


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    with adapted(dsn) as conn:
        yield conn


@pytest.mark.parametrize("storage", ["tasks", "ranges"])
@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 30))])
def test_counts_are_those_of_the_rows(conn: Connection, storage: str, seed: int) -> None:
    if seed % 3 == 0:  # as of a run that was started before there were counters
        conn.execute("update pgflow.installation set attempts_counted_since = '2100-01-01'")
    played = Played(conn, storage, seed)
    moves, states = [], Counter[str]()
    for _ in range(60):
        moves.append(played.play())
        run, rows = read_run(conn, played.run), counted(conn, played.run)
        assert run is not None
        states[run.state] += 1
        told = {step.step_slug: step.counts for step in run.steps if step.started_at is not None}
        assert told == rows, (run.state, moves)
        assert run.counts == total(rows.values())
        for counts in told.values():
            parts = [
                getattr(counts, name) for name in ItemCounts.__struct_fields__[1:-1] if name != "tolerated"
            ]
            assert sum(parts) == counts.items
    [listed] = read_runs(conn)
    assert run is not None
    assert (listed.counts, listed.state, listed.done) == (run.counts, run.state, run.done)
    for step in run.steps:
        if step.started_at is not None:
            items = read_items(conn, played.run, step.step_slug)
            assert Counter(item.status for item in items) == Counter(
                {
                    "completed": step.counts.completed,
                    "failed": step.counts.failed,
                    "started": step.counts.running,
                    "queued": step.counts.queued + step.counts.waiting,
                    "cancelled": step.counts.cancelled,
                    "skipped": step.counts.skipped,
                }
            )
            assert sum(item.state == "waiting" for item in items) == step.counts.waiting
            assert sum(item.attempts for item in items) == step.counts.attempts
            for status in {item.status for item in items} | {"failed"}:
                some = [item.index for item in items if item.status == status]
                read = [
                    each.index for each in read_items(conn, played.run, step.step_slug, 3, statuses=[status])
                ]
                assert read == some[:3]
                begin = len(some) // 2
                rest = read_items(
                    conn, played.run, step.step_slug, statuses=[status], start=(some or [0])[begin:][0]
                )
                assert [each.index for each in rest] == some[begin:]
