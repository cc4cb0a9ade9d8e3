"""``retry``: what failed, and what followed from it; with ``--failed`` what is not finished only."""

from __future__ import annotations

import json

import psycopg
import pytest
from cli_harness import FLOWS, Cli, OnTerminal, assert_one_screen, finish

from pgflow_mp import Client
from pgflow_mp.testing import audit_run

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
    refused = cli("retry", "--failed", run_id)
    assert_one_screen(refused, 2, "is started, only a failed run can be retried", "run FLOW")
    (cli.cwd / "allowed-3").touch()
    finished = cli("run", PICKY, "--resume", run_id, "--output", "out.json")
    assert finished.code == 0, finished
    assert json.loads((cli.cwd / "out.json").read_text()) == {"check": [1, 2, 3]}
    assert_one_screen(cli("retry", "--failed", run_id), 2, "is completed, only a failed run can be retried")
    nothing = cli("retry", run_id)
    assert (nothing.code, "which is completed: no item of it has failed" in nothing.out) == (0, True)


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
    assert_one_screen(
        cli("retry", "abcdef12", "--failed", "--step", "x"), 2, "--failed and --step cannot be used together"
    )
    assert_one_screen(cli("retry", "abcdef12", "--index", "5-"), 2, "'5-' is neither an index nor a range")
    assert_one_screen(cli("retry", "abcdef12", "--index", "9-5"), 2, "'9-5' ends before it begins")
    assert_one_screen(cli("retry", "abcdef12", PGFLOW_INDEX="x"), 2, "PGFLOW_INDEX is 'x'")


CHAIN = """
import os
from pgflow_mp import Flow, PermanentError

chain = Flow("chain", max_attempts=1, storage="{storage}")

@chain.map(tolerate=5)
def parse(text: str) -> int:
    if text == "x" and not os.path.exists("mended"):
        raise PermanentError("x is no number")
    return 100 if text == "x" else int(text)

@chain.step(depends_on=[parse])
def known(parse: list[int | None]) -> list[int]:
    return [number for number in parse if number is not None]

@chain.map(over=known)
def double(number: int) -> int:
    return 2 * number
"""


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_a_completed_run_is_repaired_once_the_code_is_mended(cli: Cli, storage: str) -> None:
    (cli.cwd / "chain.py").write_text(CHAIN.replace("{storage}", storage))
    ran = cli("run", "chain.py", "--input", '["1", "x", "3", "x"]', "--json", "--output", "out.json")
    assert ran.code == 0, ran
    assert json.loads((cli.cwd / "out.json").read_text()) == {"double": [2, 6]}
    run_id = ran.json["run_id"]

    def lines(text: str) -> list[str]:
        return [line.strip() for line in text.splitlines()]

    plan = cli("retry", run_id, "chain.py", "--dry-run")
    assert (plan.code, lines(plan.out)) == (
        0,
        [
            f"Run {run_id} of chain is completed. To be done:",
            'parse   2 failed items are tried again: [1] "x", [3] "x"',
            "known   is computed again",
            "double  is computed again, 2 items",
            "Nothing was changed.",
        ],
    )
    one = cli("retry", run_id, "--index", "3", "--error", "no number", "--step", "parse", "--dry-run")
    told = 'parse   1 failed item is tried again: [3] "x"; 1 item stays failed, as it tolerates'
    assert told in lines(one.out)
    for choice in (("--index", "0,2,4-99"), ("--error", "No Number"), ("--step", "double")):
        none = cli("retry", run_id, *choice)
        assert (none.code, "no failed item of it is one of these" in none.out) == (0, True)
    assert_one_screen(
        cli("retry", run_id, "--step", "paarse"),
        2,
        'Step "paarse" does not exist in run',
        "parse, known, double",
    )
    elsewhere = cli("retry", run_id, FLOWS.name, "--work")
    assert elsewhere.code == 2
    assert cli("status", run_id, "--json").json["status"] == "completed"

    asked = OnTerminal(cli, "retry", run_id)
    asked.wait_for(r"Compute again what is done\? \[y/N\]")
    asked.type("\n")
    declined = asked.finish()
    assert (declined.code, "Nothing was changed." in declined.out) == (0, True)
    assert cli("status", run_id, "--json").json["status"] == "completed"

    (cli.cwd / "mended").touch()
    done = cli("retry", run_id, "chain.py", "--json")
    assert (done.json["queued"], [step["recomputed"] for step in done.json["steps"]]) == (2, [None, 1, 2])
    again = cli("retry", run_id, "chain.py")
    assert (again.code, "which is started: no item of it has failed" in again.out) == (0, True)
    finished = cli("retry", run_id, "chain.py", "--work", "--output", "-")
    assert (finished.code, json.loads(finished.out)) == (0, {"double": [2, 200, 6, 200]})
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn, autocommit=True) as conn:
        assert audit_run(conn, run_id) == []


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_a_run_that_workers_are_at_is_repaired_under_their_hands(cli: Cli, storage: str) -> None:
    code = CHAIN.replace("{storage}", storage)
    slow = code.replace("    return 2 * number", "    time.sleep(0.1)\n    return 2 * number")
    (cli.cwd / "chain.py").write_text("import time\n" + slow)
    items = ["x" if number % 12 == 3 else str(number) for number in range(60)]
    assert cli.dsn is not None
    run_id = cli("start", "chain.py", "--input", json.dumps(items), "--json").json["run_id"]
    worker = cli.start("work", "chain.py", "--workers", "2")
    with Client(cli.dsn) as client:
        run = client.get_run(run_id)
        assert run is not None
        run.steps["double"].wait("started", timeout=60)
        (cli.cwd / "mended").touch()
        done = run.retry()
        assert (done.items, done.recomputed) == (5, ("known", "double"))
        assert not run.retry()
        output = (run.wait(60).output or {})["double"]
    assert output == [200 if item == "x" else 2 * int(item) for item in items]
    worker.terminate()
    assert finish(worker).code == 0
    with psycopg.connect(cli.dsn, autocommit=True) as conn:
        assert audit_run(conn, run_id) == []
