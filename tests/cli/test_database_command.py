"""``db``: the database's address, a psql in it, its size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from cli_harness import FLOWS, Cli, assert_one_screen, environment


def test_the_address_is_printed_and_works(cli: Cli) -> None:
    done = cli("db", "dsn")
    assert (done.code, done.err) == (0, "")
    with psycopg.connect(done.out.strip()) as conn:
        assert conn.execute("select 1").fetchone() == (1,)
    told = cli("db", "dsn", "--json").json
    assert told == {"dsn": done.out.strip(), "embedded": False}


def test_psql_gets_its_arguments_and_gives_its_status(cli: Cli) -> None:
    command = [*cli.command("db", "psql"), "--", "-XAtc"]
    for query, status, out in (("select 6 * 7", 0, "42\n"), ("select nope", 1, "")):
        done = subprocess.run(
            [*command, query],
            env=environment(cli.cwd),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (status, out), done.stderr


def test_sizes_are_told_with_what_may_go(cli: Cli) -> None:
    assert cli("run", f"{FLOWS}:square", "--input", "[1, 2]").code == 0
    told = cli("db", "size", "--json").json
    assert told["ended_runs"] == 1
    assert 0 < told["ours_bytes"] == sum(table["bytes"] for table in told["tables"]) < told["total_bytes"]
    text = cli("db", "size").out
    assert "pgflow.runs (" in text
    assert "Ended, and still there: 1 run," in text
    assert "prune --keep 30d" in text
    assert_one_screen(cli("db", "size", "--", "x"), 2, "db size takes no further arguments")
    assert_one_screen(cli("db", "nothing"), 2, "'nothing' is not one of")


@pytest.mark.slow
def test_the_embedded_server_runs_while_its_psql_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pgflow_mp", "db", "psql", "--", "-Atc", "table pgflow.schema_version"]
    done = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "|" in done.stdout
    told = subprocess.run(
        [*command[:4], "dsn"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert told.stdout.startswith("host=")
    assert "runs while a command" in told.stderr
