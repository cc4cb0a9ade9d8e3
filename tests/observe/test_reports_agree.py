"""The numbers of reports are those of the rows, in either storage, whatever happens to a run."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest
from played_run import ITEMS, WORKERS, Played, counted
from worker_harness import adapted

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reusing import Reuse
from pgflow_mp.db.starting import start_once
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


@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_what_was_taken_from_an_earlier_run_had_its_attempts_there(conn: Connection, storage: str) -> None:
    played = Played(conn, storage, 1)
    for _ in range(40):
        played.claim()
        played.complete()
        if (run := read_run(conn, played.run)) is not None and run.steps[0].status == "completed":
            break
    again = start_once(
        conn,
        played.flow,
        json.dumps([*range(5, ITEMS + 5)]).encode(),
        str(uuid.uuid4()),
        reuse=Reuse(played.run, ["a"], [False]),
    ).run_id
    run, rows = read_run(conn, again), counted(conn, again)
    assert run is not None
    assert run.steps[0].counts.completed == ITEMS - 5
    assert {step.step_slug: step.counts for step in run.steps if step.started_at is not None} == rows


def test_an_output_of_the_wrong_type_is_a_failure_that_is_counted(conn: Connection) -> None:
    conn.execute("select pgflow.create_flow('f'), pgflow.add_step('f', 'one')")
    conn.execute("select pgflow.add_step('f', 'm', array['one'], step_type => 'map')")
    run_id = engine.start_flow(conn, "f", b"{}")
    engine.register_worker(conn, WORKERS[0], "f", "player", 3600)
    [task] = engine.claim_tasks(conn, "f", WORKERS[0], 1)
    engine.complete_tasks(conn, run_id, "one", [0], [b"7"], WORKERS[0], [task.attempt])
    run = read_run(conn, run_id)
    assert run is not None
    assert (run.state, run.counts.failed, run.counts.attempts, run.steps[0].state) == (
        "failed",
        1,
        1,
        "failed",
    )
    assert {"one": run.steps[0].counts} == counted(conn, run_id)
