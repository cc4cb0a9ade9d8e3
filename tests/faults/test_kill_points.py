"""Kills at random points of a run's life: each time the run is gone on with, and ends right.

PGFLOW_KILL_POINTS sets how many (15; the full version has 200), PGFLOW_KILL_SEED which.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from range_harness import Ranges, start_in_ranges
from worker_flows import LOG
from worker_harness import Tasks, output, process, start

from pgflow_mp.db import connection, schema
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.testing import audit_run

POINTS = int(os.environ.get("PGFLOW_KILL_POINTS", "15"))
SEED = int(os.environ.get("PGFLOW_KILL_SEED", "1"))
ITEMS = 300
QUICK: dict[str, Any] = {"heartbeat_interval": 0.2, "dead_after": 1.0, "crash_budget": 5}


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A durable server that the test may kill."""
    with EmbeddedServer(tmp_path_factory.mktemp("kills") / "state") as server:
        with connection.connect(server.dsn) as conn:
            schema.install(conn)
        yield server


def postmaster(server: EmbeddedServer) -> psutil.Process:
    return psutil.Process(int((server.data_dir / "data" / "postmaster.pid").read_text().split()[0]))


SERVER_RESTS = 15.0
"""Seconds between kills of the server: one that dies more than five times a minute is not revived."""


def strike(
    chance: random.Random, worker: subprocess.Popen[str], server: EmbeddedServer, struck: list[float]
) -> str:
    """Kill someone; who it was. ``struck`` has the times when the server was hit."""
    victim = chance.choice(["parent", "child", "child", "server", "backend"])
    if victim in ("server", "backend"):
        if struck and time.monotonic() - struck[-1] < SERVER_RESTS:
            victim = "parent"
        else:
            struck.append(time.monotonic())
    if victim == "parent":
        worker.kill()
    elif victim == "child":
        # Python's resource tracker is spared: it is what clears up after a killed process.
        children = [
            child
            for child in psutil.Process(worker.pid).children(recursive=True)
            if "resource_tracker" not in " ".join(child.cmdline())
        ]
        if not children:
            worker.kill()
            return "parent"
        chance.choice(children).send_signal(chance.choice([signal.SIGKILL, signal.SIGSEGV]))
    elif victim == "server":
        postmaster(server).send_signal(chance.choice([signal.SIGKILL, signal.SIGQUIT]))
    else:
        backends = [p for p in postmaster(server).children() if "pgflow" in " ".join(p.cmdline())]
        if not backends:
            return "nobody"
        chance.choice(backends).kill()
    return victim


def finished(worker: subprocess.Popen[str], timeout: float) -> bool:
    try:
        worker.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.communicate()
        return False
    return worker.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("begin", [start, start_in_ranges], ids=["tasks", "ranges"])
def test_a_run_ends_right_whoever_is_killed_whenever(
    own_server: EmbeddedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[[str, str, Any], str],
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv(LOG, str(log))
    chance = random.Random(SEED)
    victims: Counter[str] = Counter()
    struck: list[float] = []
    for point in range(POINTS):
        log.write_text("")
        run_id = begin(own_server.dsn, "naps", [0.005] * ITEMS)
        worker = process(own_server.dsn, "naps", run_id, **QUICK)
        time.sleep(chance.uniform(0.0, 2.0))
        try:
            victims[strike(chance, worker, own_server, struck)] += 1
        except psutil.Error:
            victims["nobody"] += 1
        for _ in range(4):
            if finished(worker, 60):
                break
            connection.retrying(own_server.dsn, give_up_after=60).close()  # a worker starts on a server only
            worker = process(own_server.dsn, "naps", run_id, **QUICK)
        else:
            pytest.fail(f"kill point {point}: the run does not end; victims {victims}")
        connection.retrying(own_server.dsn, give_up_after=60).close()  # the server may still be coming back
        assert output(own_server.dsn, run_id) == {"count": ITEMS}, (point, victims)
        ranges = Ranges(own_server.dsn, run_id, "nap")
        outputs = ranges.outputs if ranges.items else Tasks(own_server.dsn, run_id).outputs("nap")
        assert outputs == list(range(ITEMS)), (point, victims)
        with psycopg.connect(own_server.dsn) as conn:
            assert audit_run(conn, run_id) == [], (point, victims)
        ends = Counter(line for line in log.read_text().splitlines() if line.startswith("end"))
        assert len(ends) == ITEMS  # none lost; some may have been executed twice, recorded once
    print(f"killed: {dict(victims)}")
