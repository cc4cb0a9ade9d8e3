"""A scratch database with workers, in which runs are timed.

Times are whole runs by the wall clock: from start_flow to the event that the run has completed.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import psutil

from pgflow_mp.bench.served import Memory, ServedWorker
from pgflow_mp.client.feeding_items import pages_of
from pgflow_mp.db import connection, engine, loads, wire
from pgflow_mp.errors import PgflowError

SCRATCH: Final = "pgflow_bench_"
"""How the names of scratch databases begin."""
_LIMIT: Final = 3600.0  # seconds for one run
_DISK: Final = """
select c.oid::regclass::text, pg_total_relation_size(c.oid)
from pg_class c
where c.relkind in ('r', 'm', 'S') and c.relnamespace in ('pgflow'::regnamespace, 'pgmq'::regnamespace)
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """One run: seconds of start_flow, of the whole, and CPU seconds of the worker's parent and the server."""

    start: float
    total: float
    parent_cpu: float
    server_cpu: float
    run_id: str


class Arena:
    """One scratch database with workers, in which runs are timed."""

    def __init__(self, dsn: str, workers: list[ServedWorker]) -> None:
        self.dsn = dsn
        self.workers = workers
        self._conn = connected(dsn)
        self._events = connected(dsn)
        self._events.execute("listen pgflow_events")
        self._server = _server_process(self._conn)
        self._name = self._conn.info.dbname
        self._spent: dict[tuple[int, float], float] = {}

    def close(self) -> None:
        self._conn.close()
        self._events.close()

    @property
    def conn(self) -> engine.Connection:
        return self._conn

    def warm_up(self, flow: str, input: Any, times: int = 3) -> None:
        """Let plans, caches and the measured item times settle."""
        for _ in range(times):
            self.run(flow, input)

    def start(self, flow: str, input: Any, *, priority: int = 0) -> str:
        """Start a run; its id."""
        run_id = str(uuid.uuid4())
        encoded = input if isinstance(input, bytes) else msgspec.json.encode(input)
        return engine.start_flow(self._conn, flow, encoded, run_id, priority=priority)

    def load(self, flow: str, items: list[Any], size: int) -> str:
        """Start a run over a list that is ``size`` bytes long as JSON, as ``pgflow_mp.run`` does; its id."""
        run_id = str(uuid.uuid4())
        with loads.patient(self.dsn) as keeper:
            loads.load_pages(keeper, flow, pages_of(items, size), run_id)
        return loads.start_loaded_once(self._conn, run_id, None).run_id

    def run(self, flow: str, input: Any, *, loaded: list[Any] | None = None) -> Timing:
        """Run a flow to its end; with ``loaded`` these are the same items. Raises PgflowError if it fails."""
        encoded = input if isinstance(input, bytes) else msgspec.json.encode(input)
        parent, server = self.parent_cpu(), self.server_cpu()
        began = time.perf_counter()
        run_id = self.start(flow, encoded) if loaded is None else self.load(flow, loaded, len(encoded))
        started = time.perf_counter()
        self.wait(run_id)
        ended = time.perf_counter()
        return Timing(
            started - began,
            ended - began,
            self.parent_cpu() - parent,
            self.server_cpu() - server,
            run_id,
        )

    def wait(self, run_id: str) -> None:
        """Until the run has completed: by its event, and by a look now and then."""
        deadline = time.monotonic() + _LIMIT
        while time.monotonic() < deadline:
            status = engine.run_status(self._conn, run_id)
            if status == "completed":
                return
            for worker in self.workers:
                worker.check()
            if status == "failed":
                raise PgflowError(f"Run {run_id} of the benchmark failed: {self._why(run_id)}")
            until = time.monotonic() + 1.0
            while (left := until - time.monotonic()) > 0:
                ended = f'"run_id": "{run_id}"'
                for event in self._events.notifies(timeout=left, stop_after=1):
                    text = event.payload
                    if ended in text and ('"run:completed"' in text or '"run:failed"' in text):
                        until = 0.0
        raise PgflowError(f"Run {run_id} of the benchmark did not end within {_LIMIT:.0f} s")

    def parent_cpu(self) -> float:
        return sum(worker.cpu() for worker in self.workers)

    def server_cpu(self) -> float:
        """CPU seconds of the server's processes so far, but for those that work for other scratch databases.

        What has ended counts with what was seen of it. 0 for a server elsewhere.
        """
        for process in self._server.children() if self._server is not None else ():
            with contextlib.suppress(psutil.Error):
                title, times = " ".join(process.cmdline()), process.cpu_times()
                if SCRATCH not in title or self._name in title:
                    self._spent[process.pid, process.create_time()] = times.user + times.system
        return sum(self._spent.values())

    def wal_bytes(self) -> int:
        """How much write-ahead log the server has ever written."""
        row = self._conn.execute("select (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
        return int(row[0]) if row else 0

    def disk_bytes(self) -> Counter[str]:
        """What each table of runs and queues takes: rows, large values, indexes."""
        return Counter(dict(self._conn.execute(_DISK).fetchall()))

    @contextlib.contextmanager
    def watching_memory(self) -> Iterator[Memory]:
        """Look at the workers' memory ten times a second.

        Threads: what is yielded is the watching thread's until the block is left.
        """
        memory, ended = Memory(), threading.Event()

        def look() -> None:
            for worker in self.workers:
                worker.look(memory)

        def watch() -> None:
            while not ended.wait(0.1):
                look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield memory
        finally:
            ended.set()
            thread.join()
            look()

    def _why(self, run_id: str) -> str:
        return next((s.error_message for s in engine.run_progress(self._conn, run_id) if s.error_message), "")


def connected(dsn: str) -> engine.Connection:
    """A connection for the engine's calls."""
    conn = connection.connect(dsn)
    wire.adapt(conn)
    return conn


def _server_process(conn: engine.Connection) -> psutil.Process | None:
    """The server's main process, if it runs on this machine."""
    try:
        parent = psutil.Process(conn.info.backend_pid).parent()
    except psutil.Error:
        return None
    return parent if parent is not None and "postgres" in parent.name() else None
