"""What the commands tell of a run, and write of it, is the same whichever way its map is stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cli_harness import Cli, Done

from pgflow_mp.testing import audit_run

CODE = """
import os
from pgflow_mp import Flow, PermanentError

lenient = Flow("lenient_{storage}", max_attempts=1, storage="{storage}")
picky = Flow("picky_{storage}", max_attempts=1, storage="{storage}")

@lenient.map(tolerate=5)
def check(number: int) -> int:
    if number % 3 == 0 and not os.path.exists(f"allowed-{number}"):
        raise PermanentError(f"{number} is not allowed")
    return number

picky.map("check", check)
"""
INPUT = "[1, 2, 3, 4, 5, 7, 8]"
STORAGES = ("tasks", "ranges")


def flows(cli: Cli, storage: str) -> Path:
    path = cli.cwd / f"of_{storage}.py"
    path.write_text(CODE.replace("{storage}", storage))
    return path


def plain(text: str) -> str:
    """Without what differs from run to run: ids, times, and the storage in names."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "RUN", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.+]+", "TIME", text)
    text = re.sub(r"\b(tasks|ranges)\b|_(tasks|ranges)\b", "STORAGE", text)
    text = re.sub(r"\d+(\.\d+)? ?(ms|min|s|µs)\b( ago)?", "DURATION", text)
    return re.sub(r" +", " ", re.sub(r'"seconds": ?[\d.e-]+', '"seconds": 0', text))


def told(done: Done) -> tuple[int, str]:
    return done.code, plain(done.out)


def clean(cli: Cli, run_id: str, storage: str) -> bool:
    """Whether a run is stored in that way, and nothing is wrong with it."""
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn, autocommit=True) as conn:
        kept = conn.execute("select distinct storage from pgflow.items where run_id = %s", (run_id,))
        return kept.fetchall() == [(storage,)] and audit_run(conn, run_id) == []


def of_a_completed_run(cli: Cli, storage: str) -> dict[str, Any]:
    path = flows(cli, storage)
    ran = cli("run", f"{path}:lenient", "--input", INPUT, "--output", "out.jsonl", "--json")
    run_id = ran.json["run_id"]
    assert clean(cli, run_id, storage)
    whole = cli("run", f"{path}:lenient", "--resume", run_id, "--output", "out.json", "--progress", "off")
    return {
        "code": (ran.code, whole.code),
        "lines": (cli.cwd / "out.jsonl").read_text(),
        "document": plain((cli.cwd / "out.json").read_text()),
        "status": told(cli("status", run_id)),
        "status for programs": told(cli("status", run_id, "--json")),
        "good": told(cli("replay", run_id, "check", "1", str(path), "--json")),
        "retry": (refused := cli("retry", "--failed", run_id), refused.code, plain(refused.err))[1:],
        "bad": told(cli("replay", run_id, "check", "2", str(path), "--json")),
    }


def of_a_failed_run(cli: Cli, storage: str) -> dict[str, Any]:
    path = flows(cli, storage)
    ran = cli("run", f"{path}:picky", "--input", "[3, 6, 9]", "--json")
    run_id = ran.json["run_id"]
    assert clean(cli, run_id, storage)
    status = told(cli("status", run_id, "--errors"))
    for number in (3, 6, 9):
        (cli.cwd / f"allowed-{number}").touch()
    again = cli("retry", "--failed", run_id, f"{path}:picky", "--work", "--output", "out.json")
    assert clean(cli, run_id, storage)
    for number in (3, 6, 9):
        (cli.cwd / f"allowed-{number}").unlink()
    return {
        "code": (ran.code, again.code),
        "has failed": (status[0], "PermanentError: " in status[1]),
        "document": plain((cli.cwd / "out.json").read_text()),
        "status": told(cli("status", run_id, "--json")),
    }


@pytest.mark.slow
def test_a_completed_run(cli: Cli) -> None:
    in_tasks, in_ranges = (of_a_completed_run(cli, storage) for storage in STORAGES)
    assert in_tasks == in_ranges
    assert in_ranges["code"] == (0, 0)
    assert in_ranges["lines"].split() == ["1", "2", "null", "4", "5", "7", "8"]
    assert in_ranges["document"] == '{"check": [1, 2, null, 4, 5, 7, 8]}\n'
    assert in_ranges["good"][0] == 0
    assert in_ranges["bad"][0] == 1
    assert in_ranges["retry"][0] == 2
    assert "1 item failed in it, as its flow tolerates" in " ".join(in_ranges["retry"][1].split())


@pytest.mark.slow
def test_a_failed_run_that_is_retried(cli: Cli) -> None:
    in_tasks, in_ranges = (of_a_failed_run(cli, storage) for storage in STORAGES)
    assert in_tasks == in_ranges
    assert in_ranges["code"] == (1, 0)
    assert in_ranges["document"] == '{"check": [3, 6, 9]}\n'
