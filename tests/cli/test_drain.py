"""``drain``: workers end what they run, and stop."""

from __future__ import annotations

import time

import psycopg
import pytest
from cli_harness import FLOWS, Cli, assert_one_screen, finish


def registered(cli: Cli, worker_id: str, name: str) -> None:
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        conn.execute(
            "select pgflow.register_worker(%s, 'square', %s, interval '1 minute')", (worker_id, name)
        )


def test_workers_of_a_flow_or_one_by_its_name_are_told_to_drain(cli: Cli) -> None:
    cli("start", f"{FLOWS}:square", "--input", "[1]")
    for number, name in ((1, "one"), (2, "two")):
        registered(cli, f"00000000-0000-0000-0000-00000000000{number}", name)
    assert cli("drain", "one").out == "Told to drain: 1 worker (one).\n"
    assert cli("drain", "square", "--json").json == {"drained": ["two"], "running": None}
    assert "Nothing to do" in cli("drain", "square").out
    assert "Nothing to do" in cli("drain", "two").out
    assert_one_screen(cli("drain", "three"), 2, "There is no flow, and no worker, 'three'")
    late = cli("drain", "square", "--wait", "--timeout", "0.2")
    assert late.code == 0, "these were told before"


@pytest.mark.slow
def test_a_worker_drains_and_is_waited_for(cli: Cli) -> None:
    cli("start", f"{FLOWS}:slow", "--input", "[3]")
    worker = cli.start(f"{FLOWS}:slow", "--workers", "1", "--name", "drained", "--heartbeat-interval", "0.3")
    assert cli.dsn is not None
    held = "select exists (select 1 from pgflow.ranges where worker_id is not null)"
    with psycopg.connect(cli.dsn, autocommit=True) as conn:
        for _ in range(300):
            if conn.execute(held).fetchone() == (True,):
                break
            time.sleep(0.1)
        else:
            pytest.fail("the worker takes nothing")
    late = cli("drain", "drained", "--wait", "--timeout", "0.1")
    assert (late.code, "Not stopped yet: drained" in late.out) == (124, True)
    with psycopg.connect(cli.dsn, autocommit=True) as conn:
        conn.execute("update pgflow.workers set deprecated_at = null where stopped_at is null")
    done = cli("drain", "slow", "--wait", "--timeout", "30s")
    assert (done.code, done.out.splitlines()[-1]) == (0, "No longer at work.")
    assert finish(worker).code == 0
