"""``doctor``: what it finds wrong, and that it finds nothing where nothing is."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest
from cli_harness import FLOWS, Cli

from pgflow_mp.db import checkup
from pgflow_mp.worker.machine import machine_symptoms


def found(conn: psycopg.Connection[Any], level: str = "warn") -> list[str]:
    return [symptom.what for symptom in checkup.database_symptoms(conn) if symptom.level == level]


def test_a_sound_database_and_flow_are_called_so(cli: Cli) -> None:
    done = cli("doctor", str(FLOWS))
    assert "ok    flow square with " in done.out
    assert "ok    PostgreSQL 1" in done.out
    bad = {symptom["what"] for symptom in cli("doctor", "--json").json if symptom["level"] == "bad"}
    assert bad <= {"fsync is off"}, "which it is on test servers"
    assert done.code == bool(bad)


def test_what_cannot_be_reached_or_loaded_is_bad_with_what_to_do(bare_cli: Cli) -> None:
    done = bare_cli("doctor", "nowhere.py", "--dsn", "host=127.0.0.1 port=1 connect_timeout=1 dbname=x")
    assert done.code == 1
    assert done.out.count("BAD") == 2
    assert "nowhere.py" in done.out
    unused = bare_cli("doctor")
    assert "the first run makes it" in unused.out
    assert not (bare_cli.cwd / "pgflow_mp").exists(), "looking makes nothing"


def test_a_database_without_the_schema_is_bad(bare_cli: Cli, empty_dsn: str) -> None:
    done = bare_cli("doctor", "--dsn", empty_dsn)
    assert done.code == 1
    assert "has no pgflow schema" in done.out
    assert "install" in done.out


def test_runs_that_no_worker_serves_and_workers_that_fell_silent_are_named(
    conn: psycopg.Connection[Any],
) -> None:
    conn.execute("select pgflow.create_flow('waits')")
    conn.execute("select pgflow.add_step('waits', 'only')")
    conn.execute("select pgflow.start_flow('waits', '{}')")
    assert "1 run waits for a worker that serves waits" in found(conn)
    conn.execute("select pgflow.register_worker(gen_random_uuid(), 'waits', 'w', interval '1 minute')")
    others = [name for name in found(conn) if "round trip" not in name]  # how long one takes: a busy machine
    assert set(others) <= {"synchronous_commit is off"}, "which it is on test servers"
    conn.execute("update pgflow.workers set deprecated_at = now()")
    assert "1 run waits for a worker that serves waits" in found(conn), "one that drains takes nothing more"
    conn.execute("update pgflow.workers set last_heartbeat_at = now() - interval '1 hour'")
    assert "1 run waits for a worker that serves waits" in found(conn)
    assert any("fell silent" in what for what in found(conn))


def test_a_transaction_that_stays_open_is_named(
    conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "_LONG", 0)
    with psycopg.connect(conn.info.dsn, password=conn.info.password) as other:
        other.execute("select 1")
        time.sleep(0.05)
        assert any(f"(pid {other.info.backend_pid}, idle in transaction)" in what for what in found(conn))


def test_settings_that_lose_data_are_bad(conn: psycopg.Connection[Any]) -> None:
    conn.execute("set synchronous_commit = off")
    assert "synchronous_commit is off" in found(conn)


def test_a_machine_with_too_little_is_told_so() -> None:
    few = [symptom for symptom in machine_symptoms(100_000) if symptom.level != "ok"]
    assert any("100000 processes need" in symptom.what for symptom in few)
    assert any("little for 100000 processes" in symptom.advice for symptom in few)
    assert all(symptom.advice for symptom in few)
