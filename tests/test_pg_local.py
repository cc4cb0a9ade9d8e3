"""The script that runs a server in the foreground."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "pg_local.py"


def launch(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.mark.parametrize("stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_throwaway_server_runs_until_it_is_told_to_stop(stop: signal.Signals) -> None:
    process, dsn = launch()
    with psycopg.connect(dsn) as conn:
        assert conn.execute("show fsync").fetchone() == ("off",)
    process.send_signal(stop)
    process.communicate(timeout=30)
    assert process.returncode == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)


@pytest.mark.slow
def test_by_tcp_it_asks_for_the_password_that_it_made_up(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process, dsn = launch("--port", port, "--data-dir", str(tmp_path), "--set", "work_mem=7MB")
    try:
        with psycopg.connect(dsn) as conn:
            assert conn.execute("show work_mem").fetchone() == ("7MB",)
            assert conn.execute("show fsync").fetchone() == ("on",)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(dsn, password="guess")
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert (tmp_path / "postgres-18" / "data" / "PG_VERSION").exists()


@pytest.mark.slow
def test_psql_is_opened_and_the_server_ends_with_it() -> None:
    process, _ = launch("--psql")
    output, _ = process.communicate("select 6 * 7 as answer;\n", timeout=30)
    assert "42" in output
    assert process.returncode == 0


def test_an_error_is_one_message_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    process, _ = launch("--data-dir", str(tmp_path / "file"))
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 3
    assert errors.startswith("error: Cannot use the data directory")
    assert "\nhint: " in errors
    assert "Traceback" not in errors


def test_help_names_every_option() -> None:
    answer = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"], check=True, capture_output=True, text=True
    )
    for option in ("--data-dir", "--port", "--system", "--psql", "--set"):
        assert option in answer.stdout
