"""``prune`` and ``--keep``: runs that ended long ago are removed, by hand and by a worker."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psycopg
import pytest
from cli_harness import FLOWS, Cli, assert_one_screen, finish


def age(cli: Cli, run_id: str, days: int) -> None:
    """Back-date a finished run."""
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        conn.execute(
            "update pgflow.runs set started_at = started_at - make_interval(days => %(days)s),"
            " completed_at = completed_at - make_interval(days => %(days)s) where run_id = %(run)s",
            {"days": days, "run": run_id},
        )


def left(cli: Cli) -> list[int]:
    """Runs, and rows of tasks and pages."""
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        tables = ("runs", "step_tasks", "pages", "leavings")
        rows = [conn.execute(f"select count(*) from pgflow.{t}".encode()).fetchone() for t in tables]
    return [row[0] for row in rows if row is not None]


def test_what_ended_longer_ago_than_is_kept_goes(cli: Cli) -> None:
    old, young = (cli("run", f"{FLOWS}:square", "--input", "[1, 2]", "--json").json["run_id"] for _ in "ab")
    age(cli, old, 31)
    assert cli("prune", "--keep", "32d").out == "Removed 0 runs.\n"
    assert_one_screen(cli("prune", "--keep", "30d", "--flow", "nope"), 2, 'There is no flow "nope"', "square")
    done = cli("prune", "--keep", "30d", "--flow", "square", "--json")
    assert (done.code, done.json["runs"]) == (0, 1)
    assert done.json["rows"] >= 2
    assert_one_screen(cli("status", old), 2, f"There is no run {old}")
    assert cli("status", young, "--json").json["status"] == "completed"
    assert left(cli)[0] == 1
    assert left(cli)[3] == 0


def test_how_long_is_to_be_said_with_its_unit(cli: Cli, tmp_path: Path) -> None:
    assert_one_screen(cli("prune"), 2, "How long are runs to be kept?", "prune --keep 30d")
    for text in ("30", "-1d", "soon", "1e3d"):
        assert_one_screen(cli("prune", f"--keep={text}"), 2, "--keep", "is not a time with its unit like 30d")
    assert_one_screen(cli("prune", "--keep", "9999999d"), 2, "is more than a hundred years")
    unused = Cli(tmp_path)("prune", "--keep", "30d")
    assert (unused.code, unused.out[:14]) == (0, "Removed 0 runs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_worker_removes_them_while_it_works(cli: Cli) -> None:
    old = cli("run", f"{FLOWS}:square", "--input", "[1, 2]", "--json").json["run_id"]
    age(cli, old, 31)
    worker = cli.start(f"{FLOWS}:square", "--workers", "1", "--keep", "30d")
    deadline = time.monotonic() + 20
    while left(cli) != [0, 0, 0, 0]:
        assert time.monotonic() < deadline, left(cli)
        time.sleep(0.1)
    young = cli("start", f"{FLOWS}:square", "--input", "[3]").out.strip()
    while cli("status", young, "--json").json["status"] != "completed":
        assert time.monotonic() < deadline + 20
    worker.send_signal(signal.SIGTERM)
    done = finish(worker)
    assert done.code == 0
    assert "removed 1 run that ended more than" in done.err
