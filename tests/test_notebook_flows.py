"""Flows that are defined at a prompt, or with python -c, run in several processes: they are sent there."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from worker_harness import eventually

from pgflow_mp import ConfigError, Flow, FlowDefinitionError, QueueWorker, run
from pgflow_mp.installed import pip_install
from pgflow_mp.loading import shipping

CELLS = """
from __future__ import annotations
import os
from dataclasses import dataclass
import helpers_of_notebook as helpers
from pgflow_mp import Context, Flow, run
FACTOR = 10

@dataclass
class Point:
    x: int
    y: Other

@dataclass
class Other:
    z: int

def scaled(number): return FACTOR * number

flow = Flow("points", timeout=30)

@flow.map
def scale(point: Point, ctx: Context) -> Point:
    return Point(scaled(point.x) + helpers.one(), Other(os.getpid()))

@flow.step(depends_on=[scale])
def total(scale: list[Point]) -> int:
    assert isinstance(scale[0], Point) and isinstance(scale[0].y, Other)
    return sum(point.x for point in scale)

points = [{"x": n, "y": {"z": 0}} for n in range(40)]
print("got", run(flow, points, ship="cloudpickle", workers=3, batch_size=1))
pids = {item.output['y']['z'] for item in flow.imap(points, step="scale", ship="cloudpickle", workers=3)}
print("elsewhere", os.getpid() not in pids, len(pids) > 0)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "helpers_of_notebook.py").write_text("def one():\n    return 1\n")
    return tmp_path


@pytest.mark.slow
def test_at_a_prompt(folder: Path, dsn: str) -> None:
    """A real one, with a terminal: blocks are read line by line, and __main__ has no file."""
    master, slave = pty.openpty()
    environment = {**os.environ, "PGFLOW_DATABASE_URL": dsn, "TERM": "dumb", "PYTHON_BASIC_REPL": "1"}
    process = subprocess.Popen(
        [sys.executable, "-q"], stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment
    )
    os.close(slave)
    seen = b""

    def read() -> bytes:
        nonlocal seen
        os.set_blocking(master, False)
        try:
            seen += os.read(master, 1 << 16)
        except (BlockingIOError, OSError):
            time.sleep(0.02)
        return seen

    try:
        for line in CELLS.split("\n"):
            before = read().count(b">>> ") + seen.count(b"... ")
            os.write(master, line.encode() + b"\n")
            eventually(lambda n=before: read().count(b">>> ") + seen.count(b"... ") > n, 60)  # type: ignore[misc]
        os.write(master, b"exit()\n")
        eventually(lambda: process.poll() is not None or not read(), 30)
    finally:
        process.kill()
        process.wait(10)
        os.close(master)
    text = seen.decode().replace("\r\n", "\n")
    assert "got {'total': 7840}\n" in text, text
    assert "elsewhere True True\n" in text, text


WAYS = {
    "-c": ([sys.executable, "-c", CELLS], ""),
    "stdin": ([sys.executable, "-"], CELLS),
    "exec": ([sys.executable, "-c", f"exec({CELLS!r})"], ""),
}


@pytest.mark.parametrize(
    "way", ["-c", *(pytest.param(way, marks=pytest.mark.slow) for way in ("stdin", "exec"))]
)
def test_without_a_file(folder: Path, dsn: str, way: str) -> None:
    command, given = WAYS[way]
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PGFLOW_DATABASE_URL": dsn},
        check=False,
    )
    assert done.stdout == "got {'total': 7840}\nelsewhere True True\n", done.stderr


def test_without_saying_so_it_is_refused_with_what_to_do(folder: Path) -> None:
    unsaid = CELLS.replace(', ship="cloudpickle"', "")
    done = subprocess.run(
        [sys.executable, "-c", unsaid], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 1
    assert 'Or give ship="cloudpickle"' in done.stderr


def test_a_queue_worker_and_a_closure_are_sent_too(dsn: str, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def job(name: str) -> None:  # no other process could import it
        with log.open("a") as file:
            file.write(f"{name}\n")

    from pgflow_mp import Client

    with Client(dsn) as client:
        client.enqueue_many("closures", ["a", "b"])
    worker = QueueWorker(job, "closures", dsn=dsn, workers=2, ship="cloudpickle")
    assert worker.run(idle_exit=True).done == 2
    assert sorted(log.read_text().split()) == ["a", "b"]


def test_what_cannot_be_sent_is_said(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow("locked")
    lock = threading.Lock()

    def read(number: int) -> int:
        with lock:
            return number

    flow.map("read", read)
    with pytest.raises(FlowDefinitionError, match='"locked" cannot be sent to the worker') as caught:
        run(flow, [1], dsn=dsn, ship="cloudpickle")
    assert "belongs to this process" in caught.value.hint
    with pytest.raises(ConfigError, match="ship must be 'cloudpickle' or None, not 'pickle'"):
        run(flow, [1], dsn=dsn, ship="pickle")  # type: ignore[call-overload]
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(ConfigError, match="with cloudpickle, which is not installed") as missing:
        run(flow, [1], dsn=dsn, ship="cloudpickle")
    assert pip_install("notebook") in missing.value.hint
    with pytest.raises(FlowDefinitionError, match="cannot be loaded here"):
        shipping.unpack(b"nonsense")


def test_nothing_of_it_is_in_the_database_or_shown_to_handlers(dsn: str) -> None:
    """Who can write to the database must not have code executed: it goes to our own processes only."""
    import psycopg

    flow = Flow("secret_source")

    def look(_number: int, ctx: object) -> list[str]:
        return sorted(ctx.worker_config)  # type: ignore[attr-defined]

    flow.map("look", look)
    found = run(flow, [1], dsn=dsn, ship="cloudpickle", workers=1, output="look")
    assert isinstance(found, list)
    (names,) = found
    assert "shipped" not in names
    with psycopg.connect(dsn) as conn:
        tables = conn.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables "
            "where schemaname in ('pgflow', 'pgmq')"
        ).fetchall()
        for (table,) in tables:
            rows = conn.execute(f"select t::text from {table} t").fetchall()
            assert not any("cloudpickle" in str(row[0]) for row in rows), table
