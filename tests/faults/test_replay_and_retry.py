"""Debugging and going on: an item that failed in a worker fails the same way in a replay, and is retried."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psycopg
import warm_python
from worker_harness import Tasks, execute, output, run_row, serve

from pgflow_mp.client import Client
from pgflow_mp.testing import audit_run

FLOWS = Path(__file__).parents[1] / "worker_flows.py"


def cli(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return warm_python.said("pgflow_mp", *arguments, "--dsn", dsn)


def test_a_replay_tells_the_recorded_error_and_a_retry_keeps_what_was_done(dsn: str) -> None:
    items = [["echo", number] for number in range(30)] + [["permanent", "not like this"]]
    run_id, _ = execute(dsn, "mischief", items)
    assert run_row(dsn, run_id).status == "failed"
    recorded = Tasks(dsn, run_id)
    replayed = cli(dsn, "replay", run_id, "act", "30", str(FLOWS), "--json")
    assert replayed.returncode == 1
    told = json.loads(replayed.stdout)
    assert told["error"].splitlines()[0] == recorded.error("act", 30).splitlines()[0]
    assert Tasks(dsn, run_id).rows == recorded.rows

    done = [index for index, row in enumerate(recorded.rows) if row[2] == "completed"]
    with psycopg.connect(dsn) as conn:  # as if the item had been mended
        conn.execute(
            "update pgflow.step_tasks set input = '[\"echo\", 30]' where run_id = %s and task_index = 30",
            (run_id,),
        )
    client = Client(dsn)
    assert client.retry_failed(run_id) == 31 - len(done)
    client.close()
    serve(dsn, "mischief", run_id)
    assert output(dsn, run_id) == {"act": list(range(31))}
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []
