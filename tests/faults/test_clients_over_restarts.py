"""A server that is killed and started again: whoever follows runs misses nothing, jobs are done."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from open_folders import open_to_others
from pg_cluster import Cluster
from queue_jobs import note
from worker_harness import compiled, eventually, settings, threaded

from pgflow_mp import AsyncClient, Client, QueueWorker
from pgflow_mp.client.event_feed import Event
from pgflow_mp.db import schema
from pgflow_mp.worker.worker import Worker

pytestmark = pytest.mark.slow

CHAIN = ["run:started", "step:started", "step:completed", "step:started", "step:completed"]
CHAIN += ["step:started", "step:completed", "run:completed"]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="pgflow-restarts-") as folder:
        open_to_others(Path(folder))
        found = Cluster(Path(folder) / "server")
        found.run("initdb", "-D", str(found.data), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8")
        found.start()
        try:
            with psycopg.connect(found.dsn(), autocommit=True) as conn:
                schema.install(conn)
            yield found
        finally:
            found.stop(signal.SIGQUIT)


def test_events_waits_and_jobs_outlive_it(cluster: Cluster, tmp_path: Path) -> None:
    dsn, log = cluster.dsn(), tmp_path / "log"
    compiled(dsn, "chain")
    seen: list[Event] = []
    told: list[str] = []

    async def follow(run_id: str) -> None:
        async with AsyncClient(dsn) as client:
            waiting = asyncio.create_task(client.wait(run_id, 60))
            told.extend([event.type async for event in client.events(run_id, timeout=60)])
            await waiting

    with Client(dsn) as client:
        run = client.start_flow("chain", [1, 2, 3])
        client.enqueue_many("chores", [{"name": f"n{n}", "log": str(log)} for n in range(20)])
        client.enqueue("chores", {"name": "long", "do": "sleep", "seconds": 2.0, "log": str(log)})
        worker = QueueWorker(note, "chores", dsn=dsn, workers=2, visibility_timeout=60, poll_interval_ms=20)
        threads = [
            threading.Thread(target=lambda: seen.extend(client.events(run, timeout=60))),
            threading.Thread(target=lambda: asyncio.run(follow(run.run_id))),
            threading.Thread(target=worker.run),
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: log.exists() and "long" in log.read_text(), 30)  # it runs through the restart
        cluster.stop(signal.SIGQUIT)
        cluster.start()
        with threaded(Worker(settings(dsn, "chain"))):
            assert client.wait(run, 60).output == {"joined": "#2 #4 #6"}
            threads[0].join(60)
            threads[1].join(60)
        eventually(lambda: worker.report.done == 21, 30)
        worker.request_stop()
        threads[2].join(30)
        assert not any(thread.is_alive() for thread in threads)
        assert [event.type for event in seen] == CHAIN
        assert told == CHAIN
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*) from pgmq.q_chores").fetchone() == (0,)
        counts = conn.execute("select read_ct, count(*) from pgmq.a_chores group by 1").fetchall()
        assert counts == [(1, 21)]
