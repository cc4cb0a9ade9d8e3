"""Anybody who can log in can NOTIFY: what workers and clients hear is a hint to look, never news."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from database_roles import role_with
from worker_flows import LOG
from worker_harness import Tasks, adapted, eventually, run_row, settings, start, threaded

from pgflow_mp.client import Client
from pgflow_mp.db import engine
from pgflow_mp.worker.worker import Worker

CHANNELS = ("pgflow_cancelled", "pgflow_work", "pgflow_events")


class Flood:
    """A role that may do nothing but log in says these payloads on all channels, over and over."""

    def __init__(self, dsn: str, payloads: Sequence[str], pause: float) -> None:
        self.said = 0
        self._conn = psycopg.connect(dsn, autocommit=True)
        self._payloads, self._pause = payloads, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        channels = list(CHANNELS)
        while not self._stop.is_set():
            for payload in self._payloads:
                self._conn.execute("select pg_notify(c, %s) from unnest(%s::text[]) c", (payload, channels))
                self.said += len(channels)
                if self._stop.wait(self._pause):
                    return

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        self._conn.close()


@contextlib.contextmanager
def hostile(dsn: str, *payloads: str, pause: float = 0.005) -> Iterator[Flood]:
    """A flood by a role of its own."""
    with role_with(dsn, None) as nobody, Flood(nobody, payloads, pause) as flood:
        eventually(lambda: flood.said)
        yield flood
    assert not flood._thread.is_alive()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "log"
    monkeypatch.setenv(LOG, str(path))
    return path


def junk(run_id: str) -> list[str]:
    """Payloads that are no notification of ours, or lie."""
    event = {"event_type": "run:completed", "run_id": run_id, "status": "completed", "output": {"x": "lie"}}
    deep = "[" * 3000 + "]" * 3000
    return [
        run_id,
        run_id.upper(),
        str(uuid.uuid4()),
        "naps",
        "no_such_flow",
        "",
        "x" * 7999,
        deep,
        "[1, 2]",
        "null",
        '{"run_id": 7}',
        "é\u2028\x01",
        json.dumps(event),
        json.dumps(event | {"event_type": "run:failed", "status": "failed"}),
        json.dumps(event | {"run_id": [run_id]}),
    ]


def test_a_worker_drops_nothing_because_somebody_says_that_the_run_is_cancelled(dsn: str) -> None:
    run_id = start(dsn, "naps", [0.05] * 16)
    worker = Worker(settings(dsn, "naps"))
    with hostile(dsn, *junk(run_id)) as flood, threaded(worker, run_id=run_id) as running:
        report = running.join()
        assert flood.said > 50
    assert (report.run_status, report.stats.done, report.stats.late) == ("completed", 17, 0)
    tasks = Tasks(dsn, run_id)
    assert {row[3] for row in tasks.rows} == {1}
    assert tasks.outputs("nap") == list(range(16))


@pytest.mark.slow
def test_announcements_of_work_that_is_not_there_cause_few_claims(dsn: str) -> None:
    run_id = start(dsn, "naps", [])
    worker = Worker(settings(dsn, "naps", max_poll_seconds=2.0))
    with threaded(worker):
        eventually(lambda: run_row(dsn, run_id).status == "completed")
        with hostile(dsn, "naps", "chain", pause=0.0005):
            before, began = worker.stats.claims, time.monotonic()
            time.sleep(1.5)
            claims, seconds = worker.stats.claims - before, time.monotonic() - began
        assert claims / seconds < 15
        second = start(dsn, "naps", [0.0])
        eventually(lambda: run_row(dsn, second).status == "completed", 5)


def test_a_real_cancellation_is_heard_in_a_flood(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [30.0])
    worker = Worker(settings(dsn, "naps", workers=1, heartbeat_interval=20.0, dead_after=60.0))
    with threaded(worker), hostile(dsn, *junk(run_id)), adapted(dsn) as conn:
        eventually(lambda: log.exists() and "start 0" in log.read_text())
        engine.cancel_run(conn, run_id)
        second = start(dsn, "naps", [0.0])  # its turn comes when the first one's item was stopped
        eventually(lambda: run_row(dsn, second).status == "completed", 5)


def test_a_client_believes_the_database_and_asks_it_seldom(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = start(dsn, "naps", [0.0])
    asked = 0
    original = Client._call

    def counting(self: Client, *arguments: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return original(self, *arguments, **options)

    monkeypatch.setattr(Client, "_call", counting)
    with role_with(dsn, "starter") as starter, Client(starter) as client:
        run = client.get_run(run_id)
        assert run is not None
        with hostile(dsn, *junk(run_id), pause=0.0005):
            asked, began = 0, time.monotonic()
            with pytest.raises(Exception, match="Timeout"):
                run.wait(timeout=1.0)
            assert time.monotonic() - began < 3
            assert asked < 25
            assert (run.refresh().status, run.output) == ("started", None)
            with threaded(Worker(settings(dsn, "naps"))):
                assert run.wait(timeout=20).output == {"count": 1}
