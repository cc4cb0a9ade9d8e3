"""Upgrades with work under way: the last release's worker on this schema, and a run that it has left behind.

The rule: ``migrate`` may be run while workers of the last release work; they go on to the end of what they
serve. Who starts anew needs the version that fits, and is told so. ``last_release.txt`` names the commits of
the last releases, the newest last.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from db.catalog import catalog

from pgflow_mp.db import schema

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
RELEASES = Path(__file__).with_name("last_release.txt").read_text().split()
BEFORE_RANGES = pytest.mark.parametrize("old", RELEASES[:1], indirect=True)
ITEMS = 300
TENTH = "select remaining_tasks <= 270 from pgflow.step_states where step_slug = 'slowly'"
FLOWS = """
import time
from pgflow_mp import Flow

flow = Flow("moving", base_delay=1)

@flow.map
def slowly(n: int) -> int:
    time.sleep(0.02)
    return 2 * n

@flow.map(over=slowly)
def more(n: int) -> int:
    time.sleep(0.01)
    if n == 8:
        raise ValueError("always")
    return n + 1

@flow.step(depends_on=[more])
def total(more: list[int | None]) -> int:
    return sum(n or 0 for n in more)
""".replace("@flow.map(over=slowly)", "@flow.map(over=slowly, tolerate=1, max_attempts=2)")


@pytest.fixture(scope="module", params=RELEASES)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a former release's package."""
    place = tmp_path_factory.mktemp("release")
    archive = place / "release.tar"
    command = ["git", "archive", "-o", str(archive), request.param, "pgflow_mp", "sql"]
    if subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("no git history here")
    subprocess.run(["tar", "-xf", str(archive), "-C", str(place)], check=True)
    return place


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "moving.py").write_text(FLOWS)
    return tmp_path


def command(package: Path | None, project: Path, dsn: str, *words: str) -> subprocess.Popen[str]:
    """A command line of the release in ``package``, or of this tree."""
    environment = {**os.environ, "PGFLOW_DATABASE_URL": dsn, "PYTHONPATH": str(package or ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "pgflow_mp", *words],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str], seconds: float = 90.0) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def until(conn: psycopg.Connection[tuple[object, ...]], query: str, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        row = conn.execute(query.encode()).fetchone()
        if row is not None and row[0]:
            return
        time.sleep(0.05)
    pytest.fail(f"not within {seconds} s: {query}")


def test_a_worker_of_the_last_release_finishes_its_run_on_a_schema_that_is_upgraded_under_it(
    old: Path, project: Path, empty_dsn: str
) -> None:
    assert finished(command(old, project, empty_dsn, "install"))[0] == 0
    items = f"[{','.join(map(str, range(ITEMS)))}]"
    work = command(old, project, empty_dsn, "run", "moving.py", "--input", items, "--workers", "2")
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        until(conn, TENTH)
        before = schema.installed(conn)
        assert schema.install(conn).changed
        after = schema.installed(conn)
        assert before is not None
        assert after is not None
        assert (before.version, before.functions_digest) != (after.version, after.functions_digest)
        status, out, err = finished(work)
        assert status == 0, err + out
        query = "select status, output from pgflow.runs"
        assert conn.execute(query).fetchone() == (
            "completed",
            {"total": sum(2 * n + 1 for n in range(ITEMS) if n != 4)},
        )
        lost = "select count(*) from pgflow.step_tasks where status not in ('completed', 'failed')"
        assert conn.execute(lost).fetchone() == (0,)


def test_a_run_that_the_last_release_left_is_finished_by_this_one(
    old: Path, project: Path, empty_dsn: str
) -> None:
    assert finished(command(old, project, empty_dsn, "install"))[0] == 0
    items = f"[{','.join(map(str, range(ITEMS)))}]"
    work = command(old, project, empty_dsn, "run", "moving.py", "--input", items, "--workers", "2")
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        until(conn, TENTH)
        before = schema.installed(conn)
        assert before is not None
        work.kill()
        work.communicate()
        refused = finished(command(None, project, empty_dsn, "status"))
        assert refused[0] != 0
        assert "migrate" in refused[2]
        assert finished(command(None, project, empty_dsn, "migrate"))[0] == 0
        row = conn.execute("select run_id::text from pgflow.runs").fetchone()
        assert row is not None
        status, _, err = finished(
            command(None, project, empty_dsn, "run", "moving.py", "--resume", str(row[0]), "--workers", "2")
        )
        assert status == 0, err
        assert conn.execute("select status from pgflow.runs").fetchone() == ("completed",)
    if before.version == schema.latest_version():
        return  # what the older one says of newer functions depends on the number of the package
    told = finished(command(old, project, empty_dsn, "status"))
    assert told[0] != 0
    assert "newer than this pgflow_mp" in told[2]


def test_a_schema_of_the_last_release_is_upgraded_to_what_a_fresh_installation_is(
    old: Path, project: Path, empty_dsn: str, conn: psycopg.Connection[tuple[object, ...]]
) -> None:
    assert finished(command(old, project, empty_dsn, "install"))[0] == 0
    with psycopg.connect(empty_dsn, autocommit=True) as upgraded:
        schema.install(upgraded)
        assert catalog(upgraded) == catalog(conn), "also of functions whose parameters have changed"


@BEFORE_RANGES
def test_a_run_of_a_flow_whose_slugs_are_refused_by_now_goes_on_where_that_is_said(
    old: Path, project: Path, empty_dsn: str
) -> None:
    former = FLOWS.replace('Flow("moving", ', 'Flow("moving__on", ').replace("def more(", "def more_(")
    former = (
        former.replace("[more]", "[more_]")
        .replace("more: list", "more_: list")
        .replace("in more)", "in more_)")
    )
    (project / "moving.py").write_text(former)
    assert finished(command(old, project, empty_dsn, "install"))[0] == 0
    started = finished(command(old, project, empty_dsn, "start", "moving.py", "--input", "[1, 2]"))
    assert started[0] == 0, started
    assert finished(command(None, project, empty_dsn, "migrate"))[0] == 0
    (project / "moving.py").write_text(former.replace("base_delay=1)", "base_delay=1, former_slugs=True)"))
    status, _, err = finished(
        command(
            None, project, empty_dsn, "run", "moving.py", "--resume", started[1].strip(), "--workers", "1"
        )
    )
    assert status == 0, err
    (project / "moving.py").write_text(
        former.replace("moving__on", "other__one").replace(
            "base_delay=1)", "base_delay=1, former_slugs=True)"
        )
    )
    refused = finished(command(None, project, empty_dsn, "start", "moving.py", "--input", "[1]"))
    assert refused[0] == 2
    assert 'error: Flow slug "other__one" is not valid' in refused[2]
    assert "single underscores" in refused[2]


@BEFORE_RANGES
def test_a_worker_of_the_last_release_leaves_maps_in_ranges_to_those_of_this_one(
    old: Path, project: Path, empty_dsn: str, tmp_path: Path
) -> None:
    now = tmp_path / "now"
    now.mkdir()
    (now / "moving.py").write_text(FLOWS.replace("@flow.map\n", '@flow.map(storage="ranges")\n'))
    assert finished(command(old, project, empty_dsn, "install"))[0] == 0
    work = command(old, project, empty_dsn, "moving.py", "--workers", "1")
    try:
        with psycopg.connect(empty_dsn, autocommit=True) as conn:
            until(conn, "select count(*) = 1 from pgflow.flows where exists (select 1 from pgflow.workers)")
            assert finished(command(None, project, empty_dsn, "migrate"))[0] == 0
            started = finished(command(None, now, empty_dsn, "start", "moving.py", "--input", "[1, 2, 3, 4]"))
            assert started[0] == 0, started
            assert 'storage of step "slowly" is now ranges, was tasks' in started[2]
            time.sleep(3)  # in which it looks for work more than once
            assert work.poll() is None
            left = "select remaining_tasks from pgflow.step_states where step_slug = 'slowly'"
            assert conn.execute(left).fetchone() == (4,)
            resume = ("run", "moving.py", "--resume", started[1].strip(), "--workers", "1")
            status, _, err = finished(command(None, now, empty_dsn, *resume))
            assert status == 0, err
            query = "select status, output from pgflow.runs"
            assert conn.execute(query).fetchone() == ("completed", {"total": 3 + 5 + 7})
        work.terminate()
        assert finished(work)[0] == 0
    finally:
        work.kill()
        work.communicate()
