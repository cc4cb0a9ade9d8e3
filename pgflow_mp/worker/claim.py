"""How much to claim, and when (ClaimPlanner, pure), and the thread that does it (Claimer).

Claiming ahead is bounded by the time of the work, not by its count: enough to keep every lane busy until
the next claim is back, no more, so that other workers get their share and little has to be handed back.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from pgflow_mp.db import connection, engine, wire
from pgflow_mp.db.engine import ClaimedTask, Connection
from pgflow_mp.errors import DatabaseError
from pgflow_mp.worker.dispatch import TARGET, Batch
from pgflow_mp.worker.inbox import (
    Claimed,
    ClaimLost,
    ConnectionState,
    ThreadFailed,
    WorkAnnounced,
)
from pgflow_mp.worker.messages import Item

MOST: Final = 2000  # items in a claim
MOST_BYTES: Final = 16 << 20  # of input in a claim, by the average of the flow's recent ones
MOST_HELD: Final = 10_000  # items without an outcome
_RAMP: Final = 4  # a claim is at most this many times the largest one before it


@dataclass(frozen=True, slots=True)
class Load:
    """What the planner is told about a flow and the lanes.

    ``item_seconds``: time of an item of late (None: unknown). ``waiting_seconds``: work that waits for a
    lane (None: unknown). ``lane_seconds``: until the lanes are through with what they hold, summed up,
    each one counted up to the horizon. ``held``: items without an outcome, of all flows.
    """

    lanes: int
    item_seconds: float | None
    waiting: int
    waiting_seconds: float | None
    lane_seconds: float
    held: int


@dataclass(slots=True)
class _Place:
    """One flow's place in the round."""

    ceiling: int
    due: float = 0.0
    pause: float = 0.0
    round_trip: float = 0.0
    item_bytes: float = 0.0
    announced: bool = False


class ClaimPlanner:
    """Decides the quantity of the next claim of each flow. Times are time.monotonic()."""

    def __init__(
        self,
        flows: Iterable[str],
        *,
        lanes: int,
        batch_size: int | None = None,
        claim_ahead: float = 0.25,
        shortest_pause: float = 0.1,
        longest_pause: float = 2.0,
    ) -> None:
        self._batch_size = batch_size
        self._claim_ahead = claim_ahead
        self._shortest, self._longest = min(shortest_pause, longest_pause), longest_pause
        self._first = max(2 * lanes, 4)
        self._flows = {flow: _Place(self._first) for flow in flows}

    def horizon(self, flow: str) -> float:
        """Seconds of work per lane that are worth holding: two chunks and what passes during a claim."""
        return 2 * TARGET + max(self._claim_ahead, 2 * self._flows[flow].round_trip)

    def quantity(self, flow: str, load: Load, now: float) -> int:
        """Items to claim now; 0 for none."""
        place = self._flows[flow]
        if now < place.due and not place.announced:
            return 0
        most = self._most(place, load)
        if most <= 0:
            return 0
        if load.item_seconds is None:
            return min(self._batch_size or self._first, most) if load.waiting == 0 else 0
        if load.waiting_seconds is None:
            return 0
        wanted = load.lanes * self.horizon(flow)
        missing = wanted - load.waiting_seconds - load.lane_seconds
        if missing < 0.4 * wanted and not (load.waiting == 0 and missing > 0):
            return 0
        if self._batch_size is not None:
            return min(self._batch_size, most)
        quantity = max(1, int(missing / load.item_seconds))
        return min(quantity, most)

    def _most(self, place: _Place, load: Load) -> int:
        room = MOST_HELD - load.held
        if load.waiting and room < MOST // 2:
            return 0  # rather one large claim a little later than many small ones
        most = min(room, MOST)
        if self._batch_size is None:
            most = min(most, place.ceiling)
        if place.item_bytes > 0:
            most = min(most, max(1, int(MOST_BYTES / place.item_bytes)))
        return most

    def claimed(self, flow: str, asked: int, got: int, size: int, seconds: float, now: float) -> None:
        """A claim came back with ``got`` items and ``size`` bytes after ``seconds``."""
        place = self._flows[flow]
        place.announced = False
        place.round_trip += (seconds - place.round_trip) * (0.3 if place.round_trip else 1.0)
        if got:
            place.item_bytes += (size / got - place.item_bytes) * 0.3
            place.ceiling = min(MOST, max(place.ceiling, _RAMP * got))
        if got == asked:
            place.due = place.pause = 0.0
        elif got:
            place.pause = self._shortest
            place.due = now + place.pause / 4
        else:
            place.pause = min(self._longest, max(self._shortest, 2 * place.pause))
            place.due = now + place.pause

    def postpone(self, flow: str, now: float) -> None:
        """A claim failed."""
        self._flows[flow].due = now + self._shortest

    def announce(self, flow: str) -> None:
        """The database says that there is work, which ends a pause."""
        if flow in self._flows:
            self._flows[flow].announced = True

    def dry(self, flow: str) -> bool:
        """Whether the last claim found nothing."""
        place = self._flows[flow]
        return place.pause > 0 and not place.announced

    def pause(self, flow: str) -> float:
        """The present pause between claims of a flow that has nothing, in seconds."""
        return self._flows[flow].pause


def make_batch(flow: str, worker_id: str, tasks: list[ClaimedTask], lease: int | None, now: float) -> Batch:
    """The tasks of one claim as a batch."""
    runs: dict[str, int] = {}
    steps: dict[str, int] = {}
    timeouts: list[float | None] = []
    items: list[Item] = []
    size, longest = 0, 0
    last_run = last_step = None
    run = step = 0
    for run_id, step_slug, index, msg_id, attempt, body, flow_input, timeout in tasks:
        if run_id != last_run:
            run, last_run = runs.setdefault(run_id, len(runs)), run_id
        if step_slug != last_step:
            step, last_step = steps.setdefault(step_slug, len(steps)), step_slug
            if step == len(timeouts):
                timeouts.append(float(timeout))
                longest = max(longest, timeout)
        size += len(body)
        if flow_input is not None:
            size += len(flow_input)
        items.append(Item(index, attempt, msg_id, run, step, body, flow_input))
    return Batch(
        flow, worker_id, list(runs), list(steps), timeouts, items, float(lease or longest + 2), now, size
    )


@dataclass(frozen=True, slots=True)
class Request:
    """A claim that the main loop wants."""

    flow: str
    worker_id: str
    quantity: int


class Claimer(threading.Thread):
    """Claims on a connection of its own, and listens there for announcements of work.

    A worker id that it has not used before is registered first.
    At most one request is under way; its answer, Claimed or ClaimLost, goes to ``post``.
    """

    def __init__(
        self,
        dsn: str,
        post: Callable[[Any], None],
        *,
        worker_name: str,
        dead_after: float,
        lease: int | None,
    ) -> None:
        super().__init__(name="pgflow-claim", daemon=True)
        self._dsn = dsn
        self._post = post
        self._worker_name = worker_name
        self._dead_after = dead_after
        self._lease = lease
        self._registered: set[str] = set()
        self._requests: deque[Request] = deque()
        self._stop_event = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._conn: Connection | None = None

    def request(self, request: Request) -> None:
        """Claim soon."""
        self._requests.append(request)
        self._wake()

    def stop(self) -> None:
        """End the thread; a claim under way is finished and posted."""
        self._stop_event.set()
        self._wake()

    def close(self) -> None:
        """Free the pipe, after the thread has ended."""
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wake(self) -> None:
        os.write(self._wake_write, b"\0")

    def run(self) -> None:
        """The thread."""
        try:
            while not self._stop_event.is_set():
                try:
                    self._serve()
                except (psycopg.Error, OSError) as error:
                    if not connection.is_transient(error):
                        raise
                    self._close()
                    self._post(ConnectionState("claim", _short(error)))
        except BaseException as error:  # noqa: BLE001 - the main loop ends the worker
            if not self._stop_event.is_set():
                self._post(ThreadFailed("claim", error))
        finally:
            self._close()

    def _serve(self) -> None:
        conn = self._connect()
        while not self._stop_event.is_set():
            if self._requests:
                self._claim(conn, self._requests.popleft())
                self._announce(conn)
                continue
            ready, _, _ = select.select([conn.fileno(), self._wake_read], [], [], 30.0)
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            if conn.fileno() in ready:
                self._announce(conn)

    def _claim(self, conn: Connection, request: Request) -> None:
        flow, worker_id = request.flow, request.worker_id
        started = time.monotonic()
        try:
            if worker_id not in self._registered:
                engine.register_worker(conn, worker_id, flow, self._worker_name, self._dead_after)
                self._registered.add(worker_id)
            tasks = engine.claim_tasks(conn, flow, worker_id, request.quantity, self._lease)
        except psycopg.errors.ForeignKeyViolation:  # our row in the registry is gone
            self._registered.discard(worker_id)
            self._post(Claimed(flow, worker_id, None, request.quantity, 0.0))
            return
        except BaseException as error:
            if connection.is_connection_lost(error):
                self._post(ClaimLost(flow, worker_id))
            else:
                self._post(Claimed(flow, worker_id, None, request.quantity, 0.0))
            raise
        now = time.monotonic()
        batch = make_batch(flow, worker_id, tasks, self._lease, started) if tasks else None
        self._post(Claimed(flow, worker_id, batch, request.quantity, now - started))

    def _announce(self, conn: Connection) -> None:
        flows = {notify.payload for notify in conn.notifies(timeout=0)}
        for flow in flows:
            self._post(WorkAnnounced(flow))

    def _connect(self) -> Connection:
        if self._conn is None or self._conn.closed or self._conn.broken:

            def report(error: DatabaseError, pause: float) -> None:
                self._post(ConnectionState("claim", str(error)))

            conn = connection.retrying(self._dsn, stop=self._stop_event, report=report)
            wire.adapt(conn)
            conn.execute("listen pgflow_work")
            self._conn = conn
            self._post(ConnectionState("claim", ""))
        return self._conn

    def _close(self) -> None:
        if self._conn is not None:
            with contextlib.suppress(psycopg.Error):
                self._conn.close()
            self._conn = None


def _short(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
