"""``pause`` and ``resume`` of runs and flows."""

from __future__ import annotations

from pathlib import Path

import psycopg
from cli_harness import FLOWS, Cli, assert_one_screen


def test_runs_and_flows_are_paused_and_resumed_by_name(cli: Cli) -> None:
    run_id = cli("start", f"{FLOWS}:slow", "--input", "[0]").out.strip()
    done = cli("pause", run_id[:9], "--reason", "look")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(
        f"Paused run {run_id} of slow.\nGo on with it: python -m pgflow_mp resume {run_id}"
    )
    assert cli("pause", run_id).out.startswith(f"Run {run_id} of slow is paused already.")
    flow = cli("pause", "slow", "--json")
    told = {"flow": "slow", "run_id": None, "status": None, "paused": True, "until": None, "changed": True}
    assert flow.json == told
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        found = conn.execute("select run_id::text, reason from pgflow.list_pauses()").fetchall()
        assert found == [(run_id, "look"), (None, None)]
    resumed = cli("resume", run_id[:8], "--json")
    assert (resumed.code, resumed.json) == (0, {**told, "run_id": run_id, "status": "started"})
    assert "Its flow is paused, too." in cli("resume", run_id).out
    cli("pause", run_id)
    assert cli("resume", "slow").out == "Resumed flow slow.\n1 run of it stays paused.\n"
    assert cli("resume", "slow").out.startswith("Flow slow was not paused.")


def test_what_cannot_be_paused_is_one_screen(cli: Cli, tmp_path: Path) -> None:
    run_id = cli("start", f"{FLOWS}:slow", "--input", "[0]").out.strip()
    cli("cancel", run_id)
    ended = cli("pause", run_id)
    assert (ended.code, ended.out) == (
        1,
        f"Run {run_id} of slow has been cancelled already; nothing was changed.\n",
    )
    assert_one_screen(cli("pause", "nope"), 2, "There is no flow, and no run, 'nope'")
    assert_one_screen(cli("pause", "feed"), 2, "There is no flow, and no run, 'feed'")
    assert_one_screen(cli("resume", "00000000-0000-0000-0000-000000000000"), 2, "There is no run")
    assert_one_screen(cli("pause"), 2, "RUN_ID|FLOW is missing")
    assert_one_screen(Cli(tmp_path)("pause", "slow"), 2, "nothing was ever started here")
