"""The command line as a role that was granted functions only (``pgflow.grant_access``)."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import psycopg
import pytest
from cli_harness import FLOWS, Cli, finish
from database_roles import role_with
from worker_harness import eventually

from pgflow_mp.client import Client
from pgflow_mp.db.rights import ACCESS

SQUARE = f"{FLOWS}:square"


@pytest.fixture
def run_id(cli: Cli) -> str:
    """A run of ``square`` that an administrator started, so that the flow is in the database."""
    done = cli("start", SQUARE, "--input", "[1, 2]")
    assert done.code == 0, done.err
    return done.out.strip()


def status(conn: psycopg.Connection[tuple[object, ...]], run_id: str) -> object:
    row = conn.execute("select status from pgflow.runs where run_id = %s", (run_id,)).fetchone()
    return row and row[0]


def test_a_starter_starts_a_flow_by_file_and_by_name(cli: Cli, run_id: str, dsn: str, tmp_path: Path) -> None:
    with role_with(dsn, "starter") as restricted:
        starter = Cli(tmp_path, restricted)
        by_file = starter("start", SQUARE, "--input", "[3, 4]")
        assert by_file.code == 0, by_file.err
        assert "square is started as it is stored" in by_file.err
        by_name = starter("start", "square", "--input", "[5]")
        assert by_name.code == 0, by_name.err
        started = {by_file.out.strip(), by_name.out.strip()}
    with psycopg.connect(dsn) as conn:
        found = conn.execute("select run_id::text from pgflow.runs where run_id <> %s", (run_id,)).fetchall()
    assert {row[0] for row in found} == started


def test_a_starter_cannot_create_or_replace_a_flow_by_starting_it(
    cli: Cli, run_id: str, dsn: str, tmp_path: Path
) -> None:
    with role_with(dsn, "starter") as restricted:
        starter = Cli(tmp_path, restricted)
        new = starter("start", f"{FLOWS}:sums", "--input", "[1]")
        assert new.code == 2
        assert 'no flow "sums"' in new.err
        unknown = starter("start", "nowhere", "--input", "[1]")
        assert unknown.code == 2
        assert 'no flow "nowhere"' in unknown.err
        replaced = starter("start", SQUARE, "--input", "[1]", "--compile", "recreate")
        assert replaced.code == 3
        assert "permission denied for function ensure_flow_compiled" in " ".join(replaced.err.split())
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select flow_slug from pgflow.flows").fetchall() == [("square",)]


def test_a_starter_sees_the_runs_that_it_can_name_and_their_results(
    cli: Cli, run_id: str, dsn: str, tmp_path: Path
) -> None:
    assert cli("run", SQUARE, "--resume", run_id).code == 0
    with role_with(dsn, "starter") as restricted:
        starter = Cli(tmp_path, restricted)
        shown = starter("status", run_id)
        assert shown.code == 0, shown.err
        assert "completed" in shown.out
        assert starter("status", run_id, "--json").json["status"] == "completed"
        missing = starter("status", str(uuid.uuid4()))
        assert missing.code == 2
        assert "There is no run" in missing.err
        with Client(restricted) as client:
            run = client.get_run(run_id)
            assert run is not None
            assert list((run.output or {}).values()) == [[1, 4]]
            (step,) = run.steps
            assert list(client.results(run_id, step)) == [1, 4]


def test_a_starter_lists_runs_and_finds_one_by_the_beginning_of_its_id(
    cli: Cli, run_id: str, dsn: str, tmp_path: Path
) -> None:
    with role_with(dsn, "starter") as restricted:
        starter = Cli(tmp_path, restricted)
        assert [run["run_id"] for run in starter("status", "--json").json] == [run_id]
        assert starter("status", "--flow", "elsewhere", "--json").code == 2
        assert run_id in starter("status", run_id[:8].upper()).out
        none = starter("status", "ffff" if run_id[:4] != "ffff" else "eeee")
        assert none.code == 2
        assert "There is no run" in none.err


def test_cancelling_takes_an_operator(cli: Cli, run_id: str, dsn: str, tmp_path: Path) -> None:
    with role_with(dsn, "starter") as restricted:
        refused = Cli(tmp_path, restricted)("cancel", run_id)
        assert refused.code == 3
        said = " ".join(refused.err.split())
        assert "permission denied for function cancel_run" in said
        assert "grant_access('some_role', 'operator')" in said
        assert Cli(tmp_path, restricted)("status", run_id, "--json").json["status"] == "started"
    with role_with(dsn, "operator") as restricted:
        operator = Cli(tmp_path, restricted)
        assert operator("cancel", run_id).code == 0
        assert operator("status", run_id, "--json").json["status"] == "failed"
        retried = operator("retry", "--failed", run_id)
        assert retried.code == 0, retried.err
        assert operator("status", run_id, "--json").json["status"] == "started"


@pytest.mark.slow
def test_a_worker_serves_a_flow_as_it_is_stored(cli: Cli, run_id: str, dsn: str, tmp_path: Path) -> None:
    with role_with(dsn, "worker") as restricted:
        worker = Cli(tmp_path, restricted)
        done = worker("run", SQUARE, "--input", "[3, 4]", "--workers", "1")
        assert done.code == 0, done.err
        assert '"times": [9, 16]' in done.out
        assert len(re.findall("flow square: served as it is stored, role role_worker_", done.err)) == 1
        other = worker("start", SQUARE, "--input", "[5]").out.strip()
        serving = worker.start(SQUARE, "--workers", "1")
        with psycopg.connect(dsn, autocommit=True) as conn:
            eventually(lambda: status(conn, other) == "completed", 30)
        serving.terminate()
        ended = finish(serving)
        assert ended.code == 0, ended.err
        assert "flow square: served as it is stored" in ended.err


def test_a_worker_tells_retries_as_the_database_decides(cli: Cli, dsn: str, tmp_path: Path) -> None:
    source = "from pgflow_mp import Flow\nf = Flow('f', max_attempts={})\n\n"
    source += "@f.step\ndef broken(x: int) -> int:\n    raise ValueError\n"
    (tmp_path / "f.py").write_text(source.format(1))
    assert cli("start", "f.py", "--input", "1").code == 0
    (tmp_path / "f.py").write_text(source.format(3))
    with role_with(dsn, "worker") as restricted:
        done = Cli(tmp_path, restricted)("run", "f.py", "--input", "1", "--workers", "1")
    assert done.code == 1
    assert "retrying" not in done.err
    assert "is now" not in done.err


@pytest.mark.slow
def test_a_worker_is_told_who_creates_a_flow_and_how(cli: Cli, dsn: str, tmp_path: Path) -> None:
    new = f"{FLOWS}:sums"
    with role_with(dsn, "worker") as restricted:
        worker = Cli(tmp_path, restricted)
        for arguments in ([new], ["run", new, "--input", "[1]"], ["start", new, "--input", "[1]"]):
            done = worker(*arguments)
            said = " ".join(done.err.split())
            assert done.code == 2, said
            assert 'There is no flow "sums" in this database, and role role_worker_' in said
            assert "Have role postgres, the owner of the schema pgflow, run, start or serve it once" in said
            assert "python -m pgflow_mp compile FLOW" in said
            assert "as it is stored" not in said
        with psycopg.connect(dsn) as conn:
            assert conn.execute("select count(*) from pgflow.flows").fetchone() == (0,)
            conn.execute(Cli(tmp_path)("compile", new).out.encode())
        done = worker("run", new, "--input", "[1]", "--workers", "1")
        assert done.code == 0, done.err
        replaced = worker("run", new, "--input", "[1]", "--compile", "recreate")
        assert replaced.code == 3
        said = " ".join(replaced.err.split())
        assert "permission denied for function ensure_flow_compiled" in said
        assert "Connect as the owner of the schema pgflow" in said
        assert "grant_access" not in said


def test_the_access_that_is_recommended_is_the_least_that_includes_a_function(
    tx: psycopg.Connection[tuple[object, ...]],
) -> None:
    granted: dict[str, set[str]] = {}
    for access in ("reader", "starter", "operator", "worker"):
        tx.execute(f"create role pgflow_{access}".encode())
        row = tx.execute("select pgflow.grant_access(%s, %s)", (f"pgflow_{access}", access)).fetchone()
        assert row is not None
        assert isinstance(row[0], list)
        granted[access] = {re.sub(r"pgflow\.|\(.*", "", text) for text in row[0]}
    least = dict.fromkeys(granted["starter"], "starter") | dict.fromkeys(granted["reader"], "reader")
    for access in ("operator", "worker"):
        least.update(dict.fromkeys(granted[access] - granted["starter"], access))
    assert least == ACCESS
