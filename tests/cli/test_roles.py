"""The command line as a role that was granted functions only (``pgflow.grant_access``)."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg
import pytest
from cli_harness import FLOWS, Cli
from database_roles import role_with

from pgflow_mp.client import Client

SQUARE = f"{FLOWS}:square"


@pytest.fixture
def run_id(cli: Cli) -> str:
    """A run of ``square`` that an administrator started, so that the flow is in the database."""
    done = cli("start", SQUARE, "--input", "[1, 2]")
    assert done.code == 0, done.err
    return done.out.strip()


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
        assert "no flow 'sums'" in new.err
        unknown = starter("start", "nowhere", "--input", "[1]")
        assert unknown.code == 2
        assert "no flow 'nowhere'" in unknown.err
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
            assert list(run.output.values()) == [[1, 4]]
            (step,) = run.steps
            assert list(client.results(run_id, step)) == [1, 4]


def test_a_starter_lists_runs_and_finds_one_by_the_beginning_of_its_id(
    cli: Cli, run_id: str, dsn: str, tmp_path: Path
) -> None:
    with role_with(dsn, "starter") as restricted:
        starter = Cli(tmp_path, restricted)
        assert [run["run_id"] for run in starter("status", "--json").json] == [run_id]
        assert starter("status", "--flow", "elsewhere", "--json").json == []
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
