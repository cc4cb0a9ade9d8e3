"""Running workers in threads and processes for tests, and looking at what they did."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import psutil
import psycopg

from pgflow_mp.db import connection, engine, wire
from pgflow_mp.db.reads import documents
from pgflow_mp.flows.options import DEFAULT_KEY
from pgflow_mp.worker.settings import WorkerSettings
from pgflow_mp.worker.stats import WorkerReport
from pgflow_mp.worker.worker import Worker

FLOWS = Path(__file__).with_name("worker_flows.py")
STORAGE = os.environ.get("PGFLOW_TEST_STORAGE")
"""How maps are stored that do not say it: tasks where this is not set either."""
_started: list[subprocess.Popen[str]] = []


def settings(dsn: str, flow: str, **options: Any) -> WorkerSettings:
    """Settings of a worker with two lanes for one flow of worker_flows.py."""
    return WorkerSettings(
        **{"dsn": dsn, "targets": (str(FLOWS),), "flows": (flow,), "workers": 2, "grace": 5.0, **options}
    )


def adapted(dsn: str) -> engine.Connection:
    """A connection for the engine's calls."""
    conn = connection.connect(dsn)
    wire.adapt(conn)
    return conn


def compiled(dsn: str, flow: str) -> None:
    """Make the database know a flow, as a worker would."""
    from pgflow_mp.loading.finding import load_flows

    (found,) = [f for f in load_flows(str(FLOWS)) if f.slug == flow]
    with adapted(dsn) as conn:
        shape = found.shape()
        if STORAGE is not None:
            shape["options"] = {**shape.get("options", {}), DEFAULT_KEY: STORAGE}
        engine.ensure_flow_compiled(conn, flow, msgspec.json.encode(shape), found.queues)


def start(dsn: str, flow: str, input: Any) -> str:
    """Start a run; its id."""
    compiled(dsn, flow)
    with adapted(dsn) as conn:
        return engine.start_flow(conn, flow, msgspec.json.encode(input))


def serve(dsn: str, flow: str, run_id: str, **options: Any) -> tuple[Worker, WorkerReport]:
    """Work on a run here until it has ended."""
    worker = Worker(settings(dsn, flow, **options))
    return worker, worker.run(run_id=run_id)


def execute(dsn: str, flow: str, input: Any, **options: Any) -> tuple[str, WorkerReport]:
    """Start a run and work on it here until it has ended."""
    run_id = start(dsn, flow, input)
    return run_id, serve(dsn, flow, run_id, **options)[1]


class Tasks:
    """The items of one run, whatever they are stored in."""

    def __init__(self, dsn: str, run_id: str) -> None:
        with psycopg.connect(dsn) as conn:
            self.rows = conn.execute(
                "select step_slug, item_index, status, attempts, error, output "
                "from pgflow.items where run_id = %s order by 1, 2",
                (run_id,),
            ).fetchall()

    def statuses(self, step: str) -> Counter[str]:
        """How many tasks of a step have which status."""
        return Counter(row[2] for row in self.rows if row[0] == step)

    def outputs(self, step: str) -> list[Any]:
        """Outputs in index order."""
        return [row[5] for row in self.rows if row[0] == step]

    def error(self, step: str, index: int) -> str:
        """The error text of a task."""
        return cast(str, next(row[4] for row in self.rows if row[0] == step and row[1] == index))

    def attempts(self, step: str, index: int) -> int:
        """The attempts of a task."""
        return cast(int, next(row[3] for row in self.rows if row[0] == step and row[1] == index))


def run_row(dsn: str, run_id: str) -> engine.RunRow:
    """The run's row."""
    with adapted(dsn) as conn:
        row = engine.get_run(conn, run_id)
    assert row is not None
    return row


def output(dsn: str, run_id: str) -> Any:
    """The run's output; fails if it is not completed."""
    row = run_row(dsn, run_id)
    assert row.status == "completed", row
    with adapted(dsn) as conn:
        found = documents.run_output(conn, run_id)
    assert found is not None
    return json.loads(found)


def eventually(condition: Callable[[], Any], timeout: float = 30.0) -> Any:
    """What ``condition`` returns once it is true; ``timeout`` is for what never is, however busy we are."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
    return found


class ThreadedWorker:
    """A worker in a thread."""

    def __init__(self, worker: Worker, **arguments: Any) -> None:
        self.worker = worker
        self.report: WorkerReport | None = None
        self.error: BaseException | None = None
        self._arguments = arguments
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.report = self.worker.run(**self._arguments)
        except BaseException as error:
            self.error = error

    def join(self, timeout: float = 30.0) -> WorkerReport:
        """Wait for its end."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the worker does not end"
        if self.error is not None:
            raise self.error
        assert self.report is not None
        return self.report


@contextlib.contextmanager
def threaded(worker: Worker, **arguments: Any) -> Iterator[ThreadedWorker]:
    """A worker in a thread, stopped at the end of the block."""
    running = ThreadedWorker(worker, **arguments)
    try:
        yield running
    finally:
        worker.request_stop()
        worker.request_stop()
        running._thread.join(20)


def process(
    dsn: str, flow: str, run_id: str | None = None, *, in_new_group: bool = False, **options: Any
) -> subprocess.Popen[str]:
    """A worker in a process of its own; it prints its report as its last line."""
    command = [sys.executable, __file__, json.dumps([dsn, flow, run_id, options])]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        process_group=0 if in_new_group else None,
    )
    _started.append(running)
    return running


def end_processes() -> None:
    """End what a test that failed has left running."""
    while _started:
        running = _started.pop()
        if running.poll() is None:
            kill(running)


def kill(running: subprocess.Popen[str]) -> None:
    """End a process by SIGKILL and wait for it."""
    running.send_signal(signal.SIGKILL)
    running.communicate()


def lines(log: Path, word: str) -> list[str]:
    """What handlers of worker_flows.py have noted, by its first word."""
    return [line for line in log.read_text().splitlines() if line.startswith(word)]


@contextlib.contextmanager
def peak() -> Iterator[list[int]]:
    """The growth of this process' resident memory within the block, in bytes: one number, at its end."""
    process, found, done = psutil.Process(), list[int](), threading.Event()
    before = highest = process.memory_info().rss

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.01):
            highest = max(highest, process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        found.append(highest - before)


if __name__ == "__main__":
    _dsn, _flow, _run_id, _options = json.loads(sys.argv[1])
    _report = Worker(settings(_dsn, _flow, **_options)).run(run_id=_run_id)
    print(json.dumps({"ending": _report.ending, "done": _report.stats.done, "released": _report.released}))
