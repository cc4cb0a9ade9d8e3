"""Runs in rare states are sought a piece at a time, and all are found in the end."""

from __future__ import annotations

import psycopg
import pytest

from pgflow_mp.db import engine, wire
from pgflow_mp.observe import read_reports, run_search
from pgflow_mp.observe.run_search import search_runs


def test_a_search_ends_early_and_is_gone_on_with(
    conn: psycopg.Connection[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.adapt(conn)
    conn.execute("select pgflow.create_flow('sought')")
    conn.execute("select pgflow.add_step('sought', 'only')")
    runs = [engine.start_flow(conn, "sought", b"{}")]
    worker = "00000000-0000-4000-8000-000000000001"
    engine.register_worker(conn, worker, "sought", "somebody")
    engine.claim_tasks(conn, "sought", worker, 1)  # while there is but one: it may be of any run
    runs += [engine.start_flow(conn, "sought", b"{}") for _ in range(6)]
    monkeypatch.setattr(read_reports, "SOUGHT", 2)
    monkeypatch.setattr(run_search, "_ROUNDS", 1)
    found, before = search_runs(conn, 5, states=["running"])
    assert found == []
    assert before is not None
    pieces = 1
    while before is not None:
        some, before = search_runs(conn, 5, states=["running"], before=before)
        found, pieces = found + some, pieces + 1
    assert ([run.run_id for run in found], pieces) == ([runs[0]], 4)
    everything, before = search_runs(conn, 7)
    assert ([run.run_id for run in everything], before) == (runs[::-1], None)
    some, before = search_runs(conn, 3)
    rest, end = search_runs(conn, 9, before=before)
    assert ([run.run_id for run in some + rest], end) == (runs[::-1], None)
