"""``work FILE:FUNCTION --queue NAME``: a worker of plain background jobs."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from cli_harness import Cli, assert_one_screen, finish
from worker_harness import eventually

from pgflow_mp import Client

JOBS = Path(__file__).parents[1] / "queue_jobs.py"


def test_jobs_are_executed_until_it_is_stopped(cli: Cli, tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = cli.start(
        "work", f"{JOBS}:note", "--queue", "chores", "--retry", "fixed,limit=1,base=1", "-w", "2"
    )
    with Client(cli.dsn) as client:
        client.enqueue_many("chores", [{"name": f"n{n}", "log": str(log)} for n in range(5)])
        client.enqueue("chores", {"name": "bad", "do": "raise", "log": str(log)})
        eventually(lambda: log.exists() and log.read_text().count("bad") == 2, 30)
    worker.send_signal(signal.SIGTERM)
    done = finish(worker)
    assert done.code == 0, done.err
    assert "2 workers for queue chores" in done.err
    assert "failed at attempt 1, tried again in 1 s" in done.err
    assert "5 jobs done" in done.err
    assert "1 to be tried again, 1 given up" in done.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("work", "--queue", "chores"), "Which function is to execute the jobs?"),
        (("work", str(JOBS), "--queue", "chores"), "names no function"),
        (("work", f"{JOBS}:nobody", "--queue", "chores"), 'has no function "nobody"'),
        (("work", f"{JOBS}:note", "--queue", "a b"), "cannot be the name of a queue"),
        (("work", f"{JOBS}:note", "--queue", "c", "--retry", "soon"), "strategy of a retry must be"),
        (("work", f"{JOBS}:note", "--queue", "c", "--retry", "fixed,base"), "is not NAME=N"),
        (("work", f"{JOBS}:note", "--queue", "c", "--retry", "fixed,cap=9"), "cap is not allowed"),
    ],
)
def test_what_makes_no_sense_is_one_screen(cli: Cli, words: tuple[str, ...], text: str) -> None:
    assert_one_screen(cli(*words), 2, text)
