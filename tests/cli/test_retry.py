"""``retry --failed``: only what is not finished runs again."""

from __future__ import annotations

import json

import pytest
from cli_harness import FLOWS, Cli, assert_one_screen

PICKY = f"{FLOWS}:picky"


def failed_run(cli: Cli) -> str:
    """A run of which item 2 (the number 3) failed, and others may not have been finished."""
    assert cli("run", PICKY, "--input", "[1, 2, 3]", "--workers", "1").code == 1
    (run,) = cli("status", "--json").json
    return str(run["run_id"])


@pytest.mark.slow
def test_only_unfinished_items_are_queued_and_the_command_that_runs_them_is_printed(cli: Cli) -> None:
    run_id = failed_run(cli)
    done_before = cli("status", run_id, "--json").json["steps"][0]
    open_items = done_before["remaining_tasks"]
    done = cli("retry", "--failed", run_id, PICKY)
    assert done.code == 0, done
    assert f" of run {run_id} of picky again." in done.out
    assert f"run {PICKY} --resume {run_id}" in " ".join(done.out.split())
    assert f"Queued {open_items} item" in done.out
    assert_one_screen(cli("retry", run_id), 2, "is started; only a failed run can be retried", "run FLOW")
    (cli.cwd / "allowed-3").touch()
    finished = cli("run", PICKY, "--resume", run_id, "--output", "out.json")
    assert finished.code == 0, finished
    assert json.loads((cli.cwd / "out.json").read_text()) == {"check": [1, 2, 3]}
    assert_one_screen(cli("retry", run_id), 2, "is completed; only a failed run can be retried")


@pytest.mark.slow
def test_work_executes_the_rest_here(cli: Cli) -> None:
    run_id = failed_run(cli)
    assert cli("retry", run_id, PICKY, "--work").code == 1
    (cli.cwd / "allowed-3").touch()
    done = cli("retry", "--failed", run_id[:8], PICKY, "--work", "--output", "-", "--workers", "1")
    assert done.code == 0, done
    assert json.loads(done.out) == {"check": [1, 2, 3]}


def test_misuse_is_one_screen(cli: Cli) -> None:
    assert_one_screen(cli("retry", "--failed", "abcdef12"), 2, "There is no run abcdef12")
    assert_one_screen(cli("retry", "abcdef12", "--timeout", "3"), 2, "--timeout is for --work")
