"""``cancel``: a run ends, and what runs of it is stopped."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psycopg
import pytest
from cli_harness import FLOWS, Cli, assert_one_screen, finish


@pytest.mark.slow
def test_running_items_are_stopped_and_the_run_can_be_gone_on_with(cli: Cli) -> None:
    run_id = cli("start", f"{FLOWS}:slow", "--input", "[30, 30, 0]").out.strip()
    worker = cli.start(f"{FLOWS}:slow", "--workers", "2")
    notes, deadline = cli.cwd / "naps", time.monotonic() + 20
    while not notes.exists() or notes.read_text().count("30") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    done = cli("cancel", run_id[:8], "--reason", "wrong input")
    assert done.code == 0, done
    assert f"Cancelled run {run_id} of slow: " in done.out
    assert f"python -m pgflow_mp retry --failed {run_id}" in done.out
    time.sleep(2.0)
    worker.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    assert finish(worker).code == 0
    assert time.monotonic() - asked < 10  # nothing sleeps there any more: 30 s of grace are not needed
    told = cli("status", run_id, "--json").json
    assert told["status"] == "failed"
    assert told["steps"][0]["error_message"] == "wrong input"
    again = cli("cancel", run_id, "--json")
    assert (again.code, again.json["cancelled"], again.json["status"]) == (1, False, "failed")
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        assert conn.execute("select count(*) from pgmq.q_slow").fetchone() == (0,)


def test_a_run_that_does_not_exist_is_one_screen(cli: Cli, tmp_path: Path) -> None:
    assert_one_screen(cli("cancel", "00000000-0000-0000-0000-000000000000"), 2, "There is no run")
    assert_one_screen(Cli(tmp_path)("cancel", "abcdef"), 2, "There is no run abcdef")
    assert_one_screen(cli("cancel"), 2, "RUN_ID is missing")
    assert list(tmp_path.iterdir()) == []
