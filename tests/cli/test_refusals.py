"""What cannot work is told at once, in clear words, with exit status 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from cli_harness import Cli, Done, assert_one_screen, environment
from database_server import DatabaseServer
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pgflow_mp.cli.complaints import report
from pgflow_mp.cli.known_runs import find_run
from pgflow_mp.db import connection, engine, schema, wire
from pgflow_mp.db.fitness import check_writable
from pgflow_mp.errors import ConfigError, PgflowError, RunNotFound, UnfitDatabase


def test_a_database_that_is_read_only_is_read_and_nothing_else(cli: Cli, dsn: str) -> None:
    name = str(conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(dsn, autocommit=True) as conn:
        setting = sql.SQL("alter database {} set default_transaction_read_only = on")
        conn.execute(setting.format(sql.Identifier(name)))
    done = cli("run", "simple", "--workers", "1")
    assert_one_screen(done, 2, "read-only for role", "default_transaction_read_only is on", "alter database")
    assert cli("status").code == 0
    with connection.connect(dsn) as again, pytest.raises(UnfitDatabase):
        check_writable(again)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(server: DatabaseServer, encoding: str) -> None:
    name = f"narrow_{encoding.lower()}"
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(f"create database {name} template template0 encoding '{encoding}' locale 'C'")
        try:
            with connection.connect(server.dsn_of(name)) as narrow:
                for refuse in (schema.install, schema.check):
                    with pytest.raises(UnfitDatabase, match=f"has the encoding {encoding}") as caught:
                        refuse(narrow)
                    assert "encoding 'UTF8'" in caught.value.hint
        finally:
            conn.execute(f"drop database {name} with (force)")


@pytest.mark.parametrize(
    ("parameters", "name", "advice"),
    [
        ("schema=public", "schema", "Remove it"),
        ("sslmode=require&pgbouncer=true", "pgbouncer", "poolers"),
        ("ssl=no", "ssl", "sslmode=require"),
        ("connection_limit=5", "connection_limit", "Remove it"),
        ("whatever=1", "whatever", "Remove it"),
    ],
)
def test_parameters_of_other_drivers_are_named(parameters: str, name: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=repr(name)) as caught:
        connection.parse(f"postgresql://me:s3cret@host/db?{parameters}")
    assert advice in caught.value.hint
    assert "s3cret" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_urls_of_other_drivers_are_understood() -> None:
    for driver in ("postgresql+psycopg", "postgresql+asyncpg", "postgres", "jdbc:postgresql"):
        found = connection.discover_dsn(f"{driver}://host/db")
        assert connection.parse(found or "")["host"] == "host"


def test_live_progress_needs_a_terminal(bare_cli: Cli) -> None:
    done = bare_cli("run", "simple", "--progress", "live")
    assert_one_screen(done, 2, "--progress live draws on a terminal", "--progress plain")
    assert not list(bare_cli.cwd.iterdir()), "something was started"


def test_a_file_named_like_a_module_of_python_is_a_flow_like_any_other(cli: Cli) -> None:
    for name in ("queue", "random", "json"):  # each in the working directory of all of our processes
        (cli.cwd / f"{name}.py").write_text(
            "from pgflow_mp import Flow\nflow = Flow('f')\n"
            "@flow.map\ndef a(x: int) -> int:\n    from queue import Queue\n    return x + bool(Queue)\n"
        )
    done = cli("run", "queue.py", "--input", "[1, 2]", "--workers", "1", "--output", "-")
    assert (done.code, done.out.strip()) == (0, json.dumps({"a": [2, 3]})), done


def test_any_beginning_of_an_id_that_is_the_only_one_will_do(dsn: str) -> None:
    ids = ["abc00000-0000-0000-0000-000000000001", "abd00000-0000-0000-0000-000000000002"]
    with connection.connect(dsn) as conn:
        wire.adapt(conn)
        conn.execute("select pgflow.create_flow('f'), pgflow.add_step('f', 'a')")
        for run_id in ids:
            engine.start_flow(conn, "f", b"{}", run_id)
        for text in ("abc", "ABC", "abc0", " abc0", ids[0], ids[0].replace("-", "")[:20]):
            assert find_run(conn, text).run_id == ids[0]
        for text in ("a", "ab"):
            with pytest.raises(RunNotFound) as caught:
                find_run(conn, text)
            assert all(run_id in caught.value.hint for run_id in ids)
        for text in ("b", "abe", "%", "_bc"):
            with pytest.raises(RunNotFound, match="There is no run"):
                find_run(conn, text)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("out cannot be written: no space", "out cannot be written"),
        ("data is a directory", "data is a directory"),
        ('tolerate of step "a" must be a number', 'tolerate of step "a" must be a number'),
        ("the server is away", "The server is away"),
        ("cannot connect to x", "Cannot connect to x"),
        ("./my flow.py is not a file", "./my flow.py is not a file"),
    ],
)
def test_the_name_that_a_message_begins_with_keeps_its_letters(
    message: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report(PgflowError(message))
    assert f"error: {shown}" in capsys.readouterr().err


def test_an_argument_that_is_no_text_is_the_mistake_of_whoever_gave_it(cli: Cli) -> None:
    (cli.cwd / "one.py").write_text(
        "from pgflow_mp import Flow\nflow = Flow('one')\n@flow.map\ndef a(x: int) -> int:\n    return x\n"
    )
    run_id = cli("run", "one.py", "--input", "[1]", "--workers", "1", "--json").json["run_id"]
    for words in (
        ["status", "caf\udce9"],
        ["retry", run_id, "--error", "caf\udce9"],
        ["results", run_id, "a", "--fields", "caf\udce9"],
        ["results", run_id, "a", "--into", '#"caf\udce9"'],
        ["results", run_id, "a", "--into", "host=caf\udce9#rows"],
    ):
        assert_one_screen(cli(*words), 2, "caf\\udce9", "byte 0xe9 is not UTF-8", "UTF-8 locale")


def test_a_user_without_a_home_is_told_to_name_a_place(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs to be root to become somebody else")
    nobody = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    nobody += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    for home in ("", "/"):  # "/" is what docker gives a user that has no entry
        env = {name: value for name, value in environment(tmp_path).items() if name != "XDG_DATA_HOME"}
        env.pop("HOME", None)
        command = [*nobody, sys.executable, "-m", "pgflow_mp", "run", "simple"]
        done = subprocess.run(
            command,
            cwd="/",
            env={**env, **({"HOME": home} if home else {})},
            capture_output=True,
            check=False,
        )
        found = Done(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert_one_screen(
            found,
            2,
            "no place for the data",
            "(--data-dir, PGFLOW_DATA_DIR)",
            f"HOME={home}" if home else "HOME is",
        )


@pytest.mark.slow
def test_a_tiny_shared_memory_file_system_is_enough_or_named(bare_cli: Cli) -> None:
    script = 'mount -t tmpfs -o size={} tmpfs /dev/shm && exec "$@"'
    for size, code in (("64k", 0), ("4k", 1)):
        prefix = ("unshare", "--mount", "sh", "-c", script.format(size), "sh")
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
            pytest.skip("file systems cannot be mounted here")
        done = bare_cli("run", "simple", "--workers", "1", prefix=prefix)
        assert (done.code == 0) == (code == 0), done
        assert code == 0 or "/dev/shm" in done.err
