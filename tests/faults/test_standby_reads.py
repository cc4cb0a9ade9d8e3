"""Whatever only looks does so on a read-only standby, too: pages and lists need not burden the primary."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pg_cluster import Cluster, clusters
from worker_harness import eventually

from pgflow_mp.db import connection, schema

pytestmark = pytest.mark.slow
FLOW = """
from pgflow_mp import Flow

flow = Flow("looked_at")

@flow.map(tolerate=5, max_attempts=1)
def double(n: int) -> int:
    return 2 * n if n != 3 else 1 // 0
"""
PORT = 8397


@pytest.fixture(scope="module")
def standby(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, str, Path]]:
    """A standby that knows a run with a failure, the run's id, and a folder with the flow."""
    folder = tmp_path_factory.mktemp("standby")
    (folder / "looked_at.py").write_text(FLOW)
    with clusters() as (primary, other):
        with connection.connect(primary.dsn("pgflow")) as conn:
            schema.install(conn)
        done = command(primary, folder, "run", "looked_at.py", "--input", "[1, 2, 3]", "--workers", "1")
        assert done.returncode == 0, done.stderr
        with psycopg.connect(primary.dsn("pgflow")) as conn:
            row = conn.execute("select run_id::text from pgflow.runs").fetchone()
        assert row is not None
        run_id, end = row[0], primary.execute("select pg_current_wal_lsn()::text")
        eventually(lambda: other.execute(f"select pg_last_wal_replay_lsn() >= '{end}'"), 20)
        yield other, run_id, folder


def environment(cluster: Cluster) -> dict[str, str]:
    return {**os.environ, "PGFLOW_DATABASE_URL": cluster.dsn("pgflow")}


def command(cluster: Cluster, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgflow_mp", *words],
        cwd=folder,
        env=environment(cluster),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        "status", "status RUN", "runs", "workers", "flows", "results RUN", "failures RUN", "logs RUN",
        "limits", "schedule list", "report RUN -o r.html", "db size", "top",
    ],
)  # fmt: skip
def test_what_looks_does_so_on_a_standby(standby: tuple[Cluster, str, Path], words: str) -> None:
    cluster, run_id, folder = standby
    done = command(cluster, folder, *words.replace("RUN", run_id).split())
    assert (done.returncode, "rror" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize(
    "words", ["retry RUN", "start looked_at.py --input [1]", "migrate", "pause looked_at"]
)
def test_what_changes_something_says_why_it_does_not(standby: tuple[Cluster, str, Path], words: str) -> None:
    cluster, run_id, folder = standby
    done = command(cluster, folder, *words.replace("RUN", run_id).split())
    assert done.returncode == 2
    assert "is a read-only standby" in done.stderr
    assert "Name the primary" in done.stderr


def test_the_web_page_shows_a_standby(standby: tuple[Cluster, str, Path]) -> None:
    cluster, run_id, folder = standby
    serve = subprocess.Popen(
        [sys.executable, "-m", "pgflow_mp", "serve", "--port", str(PORT)],
        cwd=folder,
        env=environment(cluster),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in serve.stderr or ():
            if f":{PORT}/" in line:
                break
        for path in (
            "/",
            "/runs",
            f"/runs/{run_id}",
            "/workers",
            "/flows",
            "/schedules",
            "/metrics",
            "/healthz",
        ):
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=10) as answer:
                assert answer.status == 200, path
    finally:
        serve.terminate()
        serve.communicate(timeout=20)
