"""Whatever is wrong, one screen says what, where and what to do, and nothing half-done stays."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from cli_harness import FLOWS, Cli, Done, assert_one_screen
from database_server import DatabaseServer, room_in_memory
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflow_mp.db import schema
from pgflow_mp.embedded.server import EmbeddedServer


def assert_nothing_started(cli: Cli) -> None:
    """No run and no flow in the database; without a database, none was made."""
    if cli.dsn is None:
        assert not list(cli.cwd.rglob("postgres-*"))
        return
    with psycopg.connect(cli.dsn) as conn:
        row = conn.execute("select (select count(*) from pgflow.runs) + (select count(*) from pgflow.flows)")
        assert row.fetchone() == (0,)


# -- flows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("no_such_module", ['There is no module "no_such_module"', "bundled examples are"]),
        ("no_package.flows:x", ['There is no module "no_package"']),
        ("no_file.py", ["There is no file", "no_file.py", "Did you mean my_file.py?"]),
        ("my_file.py:simple_flwo", ['has no flow "simple_flwo"', "Did you mean simple_flow?"]),
        ("two_flows.py", ["two_flows.py has 2 flows: one, two", "Name one of them: two_flows.py:one"]),
        ("no_flows.py", ["no_flows.py has no flow", "A flow is a module-level variable"]),
        ("no_parent.py", ['Step "b" depends on undefined step "a"', "no_parent.py, line 3"]),
        ("broken.py", ["broken.py:2: SyntaxError", "The line is"]),
        ("missing_library.py", ['needs the module "no_such_library"', "missing_library.py, line 1"]),
        ("raises.py", ["failed with RuntimeError: not today", "raises.py, line 1"]),
        ("leaves.py", ["exited with status 7"]),
    ],
)
def test_a_flow_that_cannot_be_loaded(bare_cli: Cli, target: str, parts: list[str]) -> None:
    flow = "from pgflow_mp import Flow\n{0} = Flow('{0}')\n{0}.step('s', lambda x: x)\n"
    sources = {
        "my_file.py": flow.format("simple_flow"),
        "two_flows.py": flow.format("one") + flow.format("two"),
        "no_flows.py": "x = 1\n",
        "no_parent.py": "from pgflow_mp import Flow as F\nf = F('f')\nf.step('b', abs, depends_on=['a'])\n",
        "broken.py": "x = 1\ndef f(:\n",
        "missing_library.py": "import no_such_library\n",
        "raises.py": "raise RuntimeError('not today')\n",
        "leaves.py": "import os; os._exit(7)\n",
    }
    for name, source in sources.items():
        (bare_cli.cwd / name).write_text(source)
    assert_one_screen(bare_cli("run", target), 2, *parts)
    assert_nothing_started(bare_cli)


@pytest.mark.parametrize("verb", ["run", "start", "work"])
def test_a_flow_that_executes_itself_when_it_is_imported(bare_cli: Cli, verb: str) -> None:
    (bare_cli.cwd / "nog.py").write_text(
        "from pgflow_mp import Flow, run\n\n"
        "flow = Flow('no_guard').map('same', lambda n: n)\n"
        "print(run(flow, [1, 2], workers=1))\n"
    )
    done = bare_cli(verb, "nog.py", *(["--input", "[1]"] if verb != "work" else []))
    says = "nog.py, line 4 calls run() while the file is imported: print(run(flow, [1, 2], workers=1))"
    assert_one_screen(done, 2, says, "Put it under a guard: if __name__ == '__main__':")


def test_a_worker_without_its_module_does_not_start(bare_cli: Cli) -> None:
    assert_one_screen(bare_cli("nowhere.flows", "--workers", "2"), 2, 'There is no module "nowhere"')
    assert_one_screen(bare_cli(PGFLOW_FLOWS="nowhere.flows"), 2, 'There is no module "nowhere"')
    (bare_cli.cwd / "pyproject.toml").write_text("[tool.pgflow_mp]\nflows = 3\n")
    assert_one_screen(bare_cli(), 2, "[tool.pgflow_mp] flows in", "must be a target or a list")
    assert_nothing_started(bare_cli)


# -- input and output ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("x.json", '{\n "value": 1,\n}\n', ["x.json, line 3, column 1: trailing comma in object"]),
        ("x.jsonl", "1\n2\n3 4\n", ["x.jsonl, line 3, column 3"]),
        (
            "x.json",
            '{"value": "many"}',
            ["x.json, an object", 'step "rootStep"', "Expected `int`, got `str`"],
        ),
        ("x.json", "[1]", ["x.json, an array", "Expected `object`, got `array`"]),
        ("x.json", "", ["x.json is empty"]),
    ],
)
def test_an_input_that_is_malformed_or_of_the_wrong_type(
    cli: Cli, name: str, content: str, parts: list[str]
) -> None:
    (cli.cwd / name).write_text(content)
    assert_one_screen(cli("run", "simple", "--input", name), 2, *parts)
    assert_nothing_started(cli)


def test_a_map_over_the_input_needs_an_array_of_what_it_takes(cli: Cli) -> None:
    flow = f"{FLOWS}:square"
    done = cli("run", flow, "--input", '{"a": 1}')
    assert_one_screen(done, 2, 'Step "times" of flow "square" is a map', "--input is an object", "JSON array")
    assert_one_screen(cli("run", flow), 2, 'Flow "square" needs an input: its step "times" is a map')
    done = cli("run", flow, "--input", "-", stdin='["a"]\n["b"]\n')
    assert_one_screen(done, 2, "No element", "standard input, an array", "Expected `int`, got `array`")
    assert_nothing_started(cli)


def test_an_output_that_cannot_be_written_is_found_before_the_work(cli: Cli) -> None:
    done = cli("run", "simple", "--output", "nowhere/out.json")
    assert_one_screen(done, 2, "--output nowhere/out.json: there is no directory nowhere")
    assert_one_screen(cli("run", "simple", "--output", "."), 2, "--output . is a directory")
    done = cli("run", "simple", "--output", "out.jsonl")
    assert_one_screen(done, 2, 'flow "simple" does not end in one map', "thirdStep", ".json")
    assert_nothing_started(cli)
    assert not list(cli.cwd.glob("out*"))


# -- the database ----------------------------------------------------------------------------------------


def test_no_server_answers(bare_cli: Cli) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"postgresql://me:very-secret@127.0.0.1:{port}/jobs"
    parts = [f"Cannot connect to me@127.0.0.1:{port}/jobs", "nothing accepts connections there", "embedded"]
    for arguments in (["run", "simple"], [], ["install"]):
        done = bare_cli(*arguments, "--dsn", url)
        assert_one_screen(done, 3, *parts)
        assert "very-secret" not in done.err
    done = bare_cli("status", DATABASE_URL=url)
    assert_one_screen(done, 3, *parts, "This server is named by DATABASE_URL")
    done = bare_cli("status", PGHOST="127.0.0.1", PGPORT=str(port))
    assert_one_screen(done, 3, "This server is named by the PG* variables")
    assert_one_screen(
        bare_cli("run", "simple", "--dsn", "host=/nowhere"), 3, "no server has its socket there"
    )


def test_something_else_answers(bare_cli: Cli) -> None:
    done = bare_cli("run", "simple", "--dsn", "mysql://me:very-secret@host/x")
    assert_one_screen(done, 2, "only PostgreSQL can be used: mysql://me:***@host/x", "postgresql://")
    assert_one_screen(bare_cli("run", "simple", "--dsn", "nonsense"), 2, "not a PostgreSQL connection string")
    assert_nothing_started(bare_cli)


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedServer]:
    """A server that also listens to TCP, asks for passwords there, and has few connections."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "max_connections": "12",
        "superuser_reserved_connections": "2",
    }
    with EmbeddedServer(room_in_memory(), throwaway=True, settings=settings) as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("create role clerk login password 'right'")
            conn.execute("create role guest login password 'right'")
            conn.execute("grant create on database pgflow to clerk")
        yield server


def over_tcp(server: EmbeddedServer, user: str, password: str, database: str = "pgflow") -> str:
    port = server.dsn.partition("port=")[2].split()[0]
    return make_conninfo(host="127.0.0.1", port=port, user=user, password=password, dbname=database)


def test_the_password_is_wrong(guarded: EmbeddedServer, tmp_path: Path) -> None:
    done = Cli(tmp_path, over_tcp(guarded, "clerk", "wrong-guess"))("run", "simple")
    assert_one_screen(done, 3, "the password is wrong for user clerk", "PGPASSWORD or in ~/.pgpass")
    assert "wrong-guess" not in done.err


def test_the_database_does_not_exist(guarded: EmbeddedServer, tmp_path: Path) -> None:
    done = Cli(tmp_path, over_tcp(guarded, "clerk", "right", "nothere"))("run", "simple")
    assert_one_screen(done, 3, "the database does not exist", "createdb")


def test_the_role_may_not_install(guarded: EmbeddedServer, tmp_path: Path) -> None:
    done = Cli(tmp_path, over_tcp(guarded, "guest", "right"))("install")
    assert_one_screen(done, 3, "Role 'guest' may not install pgflow", "install --print")


def test_the_server_has_too_few_connections_left(guarded: EmbeddedServer, tmp_path: Path) -> None:
    clerk = over_tcp(guarded, "clerk", "right")
    assert Cli(tmp_path, clerk)("install").code == 0
    with contextlib.ExitStack() as others:
        for _ in range(7):
            others.enter_context(psycopg.connect(guarded.dsn))
        done = Cli(tmp_path, clerk)("run", "simple", "--workers", "16")
        assert_one_screen(done, 3, "of its 12 connections left (max_connections)", "max_connections at the")
        for _ in range(5):
            others.enter_context(psycopg.connect(guarded.dsn))
        done = Cli(tmp_path, clerk)("run", "simple", "--workers", "16")
        assert_one_screen(done, 3, "it has no connection left", "raise max_connections")
    with psycopg.connect(clerk) as conn:
        assert conn.execute("select count(*) from pgflow.runs").fetchone() == (0,)


def test_a_database_without_the_schema(tmp_path: Path, empty_dsn: str) -> None:
    cli = Cli(tmp_path, empty_dsn)
    for arguments in (["run", "simple"], []):
        done = cli(*arguments)
        assert_one_screen(done, 3, "has no pgflow schema", "Install it: python -m pgflow_mp install --dsn")
    assert_one_screen(cli("migrate"), 2, "has no pgflow schema to migrate", "python -m pgflow_mp install")
    done = Cli(tmp_path)("status", PGFLOW_DATABASE_URL=empty_dsn)
    assert_one_screen(done, 3, "named by PGFLOW_DATABASE_URL. Install it: python -m pgflow_mp install")


def test_a_schema_that_is_newer_or_older_than_this_program(cli: Cli) -> None:
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn, autocommit=True) as conn:
        latest = schema.latest_version()
        conn.execute(
            "update pgflow.schema_version set version = version + 1000 where version = %s", (latest,)
        )
        for arguments in (["run", "simple"], ["migrate"], ["install"]):
            done = cli(*arguments)
            assert_one_screen(done, 3, "is newer than this pgflow_mp", "pip install --upgrade pgflow-mp")
        conn.execute("delete from pgflow.schema_version where version > 1000")
        assert_one_screen(
            cli("run", "simple"), 3, f"has version {latest - 1}", "Upgrade it: python -m pgflow_mp migrate"
        )


def test_a_foreign_schema_of_the_same_name_is_left_alone(tmp_path: Path, empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("create schema pgflow; create table pgflow.theirs ()")
        for arguments in (["install"], ["run", "simple"]):
            assert_one_screen(Cli(tmp_path, empty_dsn)(*arguments), 3, "that pgflow_mp did not install")
        assert conn.execute("select count(*) from pgflow.theirs").fetchone() == (0,)


def test_a_flow_that_has_changed_is_refused_unless_it_may_be_replaced(cli: Cli) -> None:
    source = "from pgflow_mp import Flow\nf = Flow('f')\nf.step('a', lambda x: 1)\n"
    (cli.cwd / "f.py").write_text(source)
    assert cli("start", "f.py").code == 0
    (cli.cwd / "f.py").write_text(source.replace("'a'", "'other'"))
    for verb in ("start", "run"):
        done = cli(verb, "f.py")
        assert_one_screen(done, 3, "differs", "other", "new slug")
    assert cli("start", "f.py", "--compile", "recreate").code == 0
    assert [run["flow_slug"] for run in cli("status", "--json").json] == ["f"]


def test_a_schema_that_this_role_may_not_use(server: DatabaseServer, dsn: str, tmp_path: Path) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        role = f"stranger_{os.getpid()}"
        conn.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
        try:
            done = Cli(tmp_path, make_conninfo(dsn, user=role))("status")
            assert_one_screen(done, 3, "The database refuses: permission denied", "more rights")
        finally:
            conn.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


# -- the embedded server ---------------------------------------------------------------------------------


def mounted(directory: Path, options: str) -> Sequence[str]:
    """A command prefix under which a small file system of its own is mounted on ``directory``."""
    directory.mkdir()
    script = f'mount -t tmpfs -o {options} tmpfs "{directory}" && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    return prefix


def refused(cli: Cli, *parts: str, directory: Path, prefix: Sequence[str] = ()) -> Done:
    done = cli("run", "simple", "--data-dir", str(directory), prefix=tuple(prefix), PGFLOW_LOG_LEVEL="error")
    assert_one_screen(done, 3, *parts)
    return done


def test_a_read_only_data_directory(bare_cli: Cli) -> None:
    disk = bare_cli.cwd / "disk"
    refused(
        bare_cli,
        "the file system is read-only",
        "--data-dir that can be written",
        directory=disk,
        prefix=mounted(disk, "ro,size=1m"),
    )


def test_a_disk_without_space_for_the_cluster(bare_cli: Cli) -> None:
    disk = bare_cli.cwd / "disk"
    refused(
        bare_cli,
        "no space left on the disk",
        "--data-dir",
        directory=disk,
        prefix=mounted(disk, "size=10m"),
    )


def test_a_data_directory_that_belongs_to_others(bare_cli: Cli) -> None:
    closed = bare_cli.cwd / "closed"
    closed.mkdir(mode=0o500)
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    refused(bare_cli, "permission denied", "owner and mode", directory=closed / "data")
    closed.chmod(stat.S_IRWXU)


def test_a_path_through_a_file(bare_cli: Cli) -> None:
    (bare_cli.cwd / "file").touch()
    refused(bare_cli, "a part of the path is a file", "another --data-dir", directory=bare_cli.cwd / "file/x")


def test_no_place_for_the_socket(bare_cli: Cli) -> None:
    read_only = "mount --bind $d $d && mount -o remount,ro,bind $d || exit 9"
    prefix = ("unshare", "--mount", "sh", "-c", f'for d in /tmp /var/tmp; do {read_only}; done; "$@"', "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    with tempfile.TemporaryDirectory(prefix="pgflow-cli-", dir="/dev/shm") as base:
        done = bare_cli("install", "--data-dir", base, prefix=prefix, PGFLOW_LOG_LEVEL="error")
        assert_one_screen(done, 2, "There is no directory for sockets", "Set TMPDIR to a directory")
        long = Path(base) / ("long" * 30)
        long.mkdir()
        done = bare_cli(
            "install", "--data-dir", base, prefix=prefix, PGFLOW_LOG_LEVEL="error", TMPDIR=str(long)
        )
        assert_one_screen(done, 3, "No directory for the server's socket", "shorter than")
