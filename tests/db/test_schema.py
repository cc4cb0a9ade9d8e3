"""Installing, upgrading and refusing: the pgflow schema in real databases."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest
from database_server import room_in_memory
from open_folders import open_to_others
from psycopg.conninfo import make_conninfo

from pgflow_mp.db import schema
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.errors import SchemaError

from .catalog import catalog
from .landed_schemas import LANDED, land

Connection = psycopg.Connection[Any]


@pytest.fixture
def empty(empty_dsn: str) -> Iterator[Connection]:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        yield conn


def test_a_fresh_database_gets_the_latest_version_and_the_bundled_queue(empty: Connection) -> None:
    assert schema.installed(empty) is None
    done = schema.install(empty)
    assert done == schema.InstallResult(0, schema.latest_version(), True, "bundled SQL")
    schema.check(empty)
    assert empty.execute("select count(*) from pgmq.list_queues()").fetchone() == (0,)


def test_a_second_installation_changes_nothing(empty: Connection) -> None:
    schema.install(empty)
    before = catalog(empty), empty.execute("select * from pgflow.schema_version").fetchall()
    assert schema.install(empty).changed is False
    assert (catalog(empty), empty.execute("select * from pgflow.schema_version").fetchall()) == before


def test_functions_that_differ_are_replaced_and_end_up_as_in_a_fresh_installation(
    empty: Connection, conn: Connection
) -> None:
    schema.install(empty)
    empty.execute(
        "create or replace function pgflow.is_local() returns boolean language sql as 'select true'"
    )
    empty.execute("update pgflow.schema_version set functions_digest = 'older', package_version = '0.0.1'")
    done = schema.install(empty)
    assert (done.before, done.changed, done.queue) == (schema.latest_version(), True, "present")
    assert catalog(empty) == catalog(conn)


@pytest.mark.parametrize("version", LANDED)
def test_what_landed_before_upgrades_to_what_a_fresh_installation_is(
    empty: Connection, conn: Connection, version: str
) -> None:
    empty.execute("set client_min_messages = warning")
    land(empty, version)
    assert schema.install(empty).before == int(version)
    assert catalog(empty) == catalog(conn)


def test_installations_at_the_same_time_do_not_disturb_each_other(empty_dsn: str) -> None:
    results: list[schema.InstallResult | BaseException] = []

    def work() -> None:
        try:
            with psycopg.connect(empty_dsn, autocommit=True) as conn:
                results.append(schema.install(conn))
        except BaseException as exc:  # the assertion below shows it
            results.append(exc)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    changed = [r.changed for r in results if isinstance(r, schema.InstallResult)]
    assert sorted(changed) == [False] * 5 + [True]


def test_a_server_that_is_lost_while_it_installs_is_told_as_lost(empty: Connection, tmp_path: Path) -> None:
    file = tmp_path / "0001_slow.sql"
    file.write_text("select pg_sleep(20)")
    pid, at_work = empty.info.backend_pid, "select pg_terminate_backend(pid) from pg_stat_activity "
    at_work += "where pid = %s and wait_event = 'PgSleep'"

    def end() -> None:
        with psycopg.connect(empty.info.dsn, autocommit=True) as conn:
            while conn.execute(at_work, [pid]).fetchone() is None:
                pass

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(psycopg.errors.AdminShutdown):
        schema._run_file(empty, file)
    thread.join()


def test_a_failing_installation_leaves_nothing_behind(empty: Connection) -> None:
    empty.execute("create schema pgmq")
    empty.execute("create table pgmq.meta (queue_name text)")
    with pytest.raises(SchemaError, match=r"too old: pgmq\.send_batch"):
        schema.install(empty)
    assert schema.installed(empty) is None


def test_a_newer_database_is_refused_and_left_alone(empty: Connection) -> None:
    schema.install(empty)
    empty.execute("insert into pgflow.schema_version values (999, '99.0', 'x')")
    with pytest.raises(SchemaError, match=r"version 999, written by pgflow_mp 99\.0\) is newer") as caught:
        schema.install(empty)
    assert "pip install --upgrade" in caught.value.hint
    with pytest.raises(SchemaError, match="is newer"):
        schema.check(empty)


def test_an_older_database_is_named_with_the_command_that_upgrades_it(empty: Connection) -> None:
    schema.install(empty)
    empty.execute("delete from pgflow.schema_version where version > 1")
    with pytest.raises(SchemaError, match="has version 1, this pgflow_mp needs") as caught:
        schema.check(empty)
    assert "migrate" in caught.value.hint


def test_functions_of_an_older_package_are_named_with_the_command_that_upgrades_them(
    empty: Connection,
) -> None:
    schema.install(empty)
    empty.execute("update pgflow.schema_version set functions_digest = 'older'")
    with pytest.raises(SchemaError, match=r"functions of the pgflow schema .* are not those") as caught:
        schema.check(empty)
    assert "migrate" in caught.value.hint
    schema.install(empty)
    schema.check(empty)
    empty.execute("update pgflow.schema_version set functions_digest = 'later', package_version = '999.0'")
    schema.check(empty)  # an older worker goes on where the functions were upgraded already


def test_a_missing_schema_is_named_with_the_command_that_installs_it(empty: Connection) -> None:
    with pytest.raises(SchemaError, match="has no pgflow schema") as caught:
        schema.check(empty)
    assert "install" in caught.value.hint


def test_a_pgflow_schema_of_somebody_else_is_not_touched(empty: Connection) -> None:
    empty.execute("create schema pgflow")
    empty.execute("create table pgflow.flows (mine int)")
    with pytest.raises(SchemaError, match="that pgflow_mp did not install"):
        schema.install(empty)
    assert empty.execute("select count(*) from pgflow.flows").fetchone() == (0,)


def test_a_role_without_rights_is_told_what_to_do(server: Any, empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as admin:
        admin.execute("drop role if exists pgflow_powerless")
        admin.execute("create role pgflow_powerless login")
        try:
            with (
                psycopg.connect(make_conninfo(empty_dsn, user="pgflow_powerless"), autocommit=True) as conn,
                pytest.raises(SchemaError, match="Role 'pgflow_powerless' may not install") as caught,
            ):
                schema.install(conn)
            owners = r"install --dsn 'user=OWNER dbname=\S+ host=\S+'\n.* install --print$"
            assert re.search(owners, caught.value.hint)
            assert schema.installed(admin) is None
        finally:
            admin.execute("drop role pgflow_powerless")


def psql(dsn: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a DBA would."""
    return subprocess.run(
        ["psql", "-X", "-q", "-f", "-", dsn], input=script, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("bundled_queue", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_printed_script_installs_the_same_with_psql(
    empty_dsn: str, empty: Connection, conn: Connection, bundled_queue: bool
) -> None:
    done = psql(empty_dsn, schema.sql_text(bundled_queue=bundled_queue))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    schema.check(empty)
    assert schema.install(empty).changed is False
    assert catalog(empty) == catalog(conn)
    empty.execute("select pgflow.create_flow('f'), pgflow.add_step('f', 'a')")
    empty.execute("select pgflow.start_flow('f', '{}')")


def test_the_printed_script_leaves_alone_what_is_installed(empty_dsn: str, empty: Connection) -> None:
    schema.install(empty)
    before = catalog(empty)
    done = psql(empty_dsn, schema.sql_text())
    assert done.returncode == 3
    assert "has a schema named pgflow already" in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert catalog(empty) == before


@pytest.mark.slow
def test_the_printed_script_takes_the_queue_that_is_there(empty_dsn: str, empty: Connection) -> None:
    schema.install(empty)
    empty.execute("drop schema pgflow cascade")
    empty.execute("select pgmq.create('mine')")
    assert psql(empty_dsn, schema.sql_text()).returncode == 0
    schema.check(empty)
    assert empty.execute("select count(*) from pgmq.list_queues()").fetchone() == (1,)


def test_the_printed_script_refuses_a_queue_that_is_too_old_and_leaves_nothing(
    empty_dsn: str, empty: Connection
) -> None:
    empty.execute("create schema pgmq")
    empty.execute("create table pgmq.meta (queue_name text)")
    done = psql(empty_dsn, schema.sql_text())
    assert done.returncode == 3
    assert "too old: pgmq.send_batch" in done.stderr
    assert schema.installed(empty) is None


def test_a_missing_queue_is_named_and_added_by_installing(empty: Connection, conn: Connection) -> None:
    schema.install(empty)
    empty.execute("drop schema pgmq cascade")
    with pytest.raises(SchemaError, match=r"but not its queue \(schema pgmq\)") as caught:
        schema.check(empty)
    assert "pgflow_mp install" in caught.value.hint
    latest = schema.latest_version()
    assert schema.install(empty) == schema.InstallResult(latest, latest, True, "bundled SQL")
    schema.check(empty)
    assert catalog(empty) == catalog(conn)
    assert schema.install(empty).changed is False


def test_nothing_is_granted_to_public(conn: Connection) -> None:
    assert (
        conn.execute(
            "select p.oid::regprocedure::text from pg_proc p "
            "where p.pronamespace = 'pgflow'::regnamespace "
            "and has_function_privilege('public', p.oid, 'execute')"
        ).fetchall()
        == []
    )
    assert conn.execute("select has_schema_privilege('public', 'pgflow', 'usage')").fetchone() == (False,)


@pytest.mark.slow
def test_it_installs_on_the_system_postgresql(system_server: Any, conn: Connection) -> None:
    for by_script in (False, True):
        with system_server.database() as dsn, psycopg.connect(dsn, autocommit=True) as other:
            if by_script:
                assert psql(dsn, schema.sql_text()).returncode == 0
            else:
                assert schema.install(other).queue == "bundled SQL"
            ours, theirs = catalog(conn), catalog(other)
            assert {k: theirs[k] for k in ("columns", "functions", "constraints", "indexes")} == {
                k: ours[k] for k in ("columns", "functions", "constraints", "indexes")
            }


@pytest.mark.slow
def test_the_extension_pgmq_is_used_where_the_server_offers_it(tmp_path: Path, conn: Connection) -> None:
    folder = tmp_path / "extension"
    folder.mkdir()
    open_to_others(tmp_path)
    queue_sql = (resources.files("pgmq") / "sql" / "pgmq.sql").read_text(encoding="utf-8")
    (folder / "pgmq--1.13.0.sql").write_text(queue_sql, encoding="utf-8")
    (folder / "pgmq.control").write_text(
        "comment = 'queue'\ndefault_version = '1.13.0'\nschema = 'pgmq'\n"
        "relocatable = false\nsuperuser = false\ntrusted = true\n",
        encoding="utf-8",
    )
    settings = {"extension_control_path": f"{tmp_path}:$system"}
    with (
        EmbeddedServer(room_in_memory(), throwaway=True, settings=settings) as server,
        psycopg.connect(server.dsn, autocommit=True) as other,
    ):
        assert schema.install(other).queue == "extension"
        assert other.execute("select count(*) from pg_extension where extname = 'pgmq'").fetchone() == (1,)
        assert catalog(other) == catalog(conn)
        other.execute("select pgflow.create_flow('f')")
        other.execute("select pgflow.add_step('f', 'a')")
        other.execute("select pgflow.start_flow('f', '{}')")
        assert other.execute("select message ->> 'step_slug' from pgmq.read('f', 5, 5)").fetchall() == [
            ("a",)
        ]
        other.execute("create database by_script template template0")
        dsn = make_conninfo(server.dsn, dbname="by_script")
        assert psql(dsn, schema.sql_text()).returncode == 0
        with psycopg.connect(dsn) as third:
            assert third.execute("select count(*) from pg_extension where extname = 'pgmq'").fetchone() == (
                1,
            )
            schema.check(third)
