"""Signs of life and upkeep, each on a thread and connection of its own so that nothing delays them.

Heartbeat: refreshes the worker's rows, extends the leases of what is held, listens for cancelled runs.
Upkeep: takes over the tasks of dead workers, requeues stalled ones and fails those that stall too often, for
the whole database, where this worker is the one that does it (contract: worker section 2, "stalled tasks");
watches the served run, and those of which items are parked.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import psycopg

from pgflow_mp.db import engine, parked, patience, recovery
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.hints import REST, Hints
from pgflow_mp.db.reads import runs
from pgflow_mp.worker.batches import Lease
from pgflow_mp.worker.database_thread import DatabaseThread
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.inbox import (
    Deprecated,
    LeasesLost,
    ParkedSeen,
    PoliciesSeen,
    RunSeen,
    Said,
    TakenForDead,
)
from pgflow_mp.worker.parking import Question
from pgflow_mp.worker.startup import Policies
from pgflow_mp.worker.vigil import Vigil

_STATEMENT_LIMIT: Final = 5  # seconds
_RECOVER_EVERY: Final = 3.0
_REQUEUE_EVERY: Final = 15.0
_SUBSTITUTE: Final = 2.0  # times as long between rounds of those that are not the upkeeper
_LEAST_REST: Final = 100  # upkeep rests this many times as long as it took
_WATCH_EVERY: Final = 0.5
_LOOK_EVERY: Final = 0.5
_UUID: Final = 36  # characters


class Heartbeat(DatabaseThread):
    """Keeps this worker alive in the eyes of the others.

    ``worker_ids`` are asked for at every beat, ``held`` knows what is to be extended. Both are called on
    this thread and answer with what nobody changes; ``last`` is written here, read by anyone. An id whose
    row somebody has deleted is registered again by ``register``, on this thread, too.
    """

    who = "heartbeat"
    silence = 2 * _STATEMENT_LIMIT

    def __init__(
        self,
        dsn: str,
        post: Callable[[Any], None],
        *,
        interval: float,
        worker_ids: Callable[[], Sequence[str]],
        held: Dispatcher,
        register: Callable[[Connection, str], None],
    ) -> None:
        super().__init__(dsn, post)
        self._register = register
        self._interval = interval
        self._worker_ids = worker_ids
        self._held = held
        self.last = time.monotonic()
        """When the last heartbeat was confirmed."""

    def _serve(self, conn: Connection) -> None:
        patience.limit_statements(conn, _STATEMENT_LIMIT)
        patience.limit_locks(conn, 1.0)
        hints = Hints(conn, "pgflow_cancelled", lambda run: run if len(run) == _UUID else None)
        due = look = rested = 0.0
        while not self._stopping.is_set():
            now = time.monotonic()
            if now >= due:
                self._beat(conn)
                due = now + min(self._interval, self._extend(conn))
            hinted = hints.read()
            if hinted and now >= look:
                self._look(conn, hints.take())
                look, hinted = time.monotonic() + _LOOK_EVERY, False
            until = min(due, look) if hinted else due
            if (now := time.monotonic()) < rested:
                self._wakeup.wait(min(until, rested) - now)
            elif self._wakeup.wait(until - now, conn.fileno()):
                rested = time.monotonic() + REST

    def _beat(self, conn: Connection) -> None:
        wanted = self._worker_ids()
        answers = engine.heartbeat(conn, wanted)
        self._keeper.worked()
        self.last = time.monotonic()
        known = {answer.worker_id for answer in answers}
        dead = [answer.worker_id for answer in answers if answer.stopped]
        for worker_id in wanted:
            if worker_id not in known:
                self._register(conn, worker_id)
        if dead:
            self._post(TakenForDead(tuple(dead)))
        if any(answer.deprecated for answer in answers):
            self._post(Deprecated())

    def _look(self, conn: Connection, hinted: Collection[bytes] | None) -> None:
        """Whether runs that we hold tasks of were cancelled, all or those that were ``hinted`` at.

        Where one is over, the leases of its batches tell which of the tasks are not ours any more: those
        that were claimed after it was retried are.
        """
        held = self._held.held_runs()
        named = {run for run in held if hinted is None or run.encode() in hinted}
        if not named:
            return
        over = {run.run_id for run in runs.run_heads(conn, named) if run.status != "started"}
        for lease in self._held.leases_of(over):
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                self._extend_one(conn, lease)

    def _extend(self, conn: Connection) -> float:
        """Extend leases that are half used up; seconds until the next look.

        Where somebody keeps tasks locked, those of the same worker id wait for the next beat: the others'
        leases, and the beat itself, do not.
        """
        leases, next_look = self._held.leases(time.monotonic(), self._interval)
        locked: set[str] = set()
        for lease in leases:
            if lease.worker_id in locked:
                continue
            try:
                self._extend_one(conn, lease)
            except psycopg.errors.LockNotAvailable:
                locked.add(lease.worker_id)
        return max(0.2, next_look)

    def _extend_one(self, conn: Connection, lease: Lease) -> None:
        now, seconds = time.monotonic(), round(lease.seconds)
        lost = engine.extend_tasks(conn, lease.flow, lease.worker_id, lease.msg_ids, seconds)
        self._held.renewed(lease, now)
        if lost:
            self._post(LeasesLost(lease.worker_id, frozenset(lost)))


class Upkeep(DatabaseThread):
    """What one worker does for the database, and the looks at the runs that this worker asks about.

    ``worker_ids`` are our own, which we never take for dead; ``policies`` reads the options of our steps.
    Threads: retire(), ask() and ask_policies() are for others. What they append to, this thread alone takes
    from.
    """

    who = "upkeep"

    def __init__(
        self,
        dsn: str,
        post: Callable[[Any], None],
        *,
        run_id: str | None,
        worker_ids: Callable[[], Sequence[str]] = tuple,
        policies: Callable[[Connection], Policies] = lambda _conn: {},
    ) -> None:
        super().__init__(dsn, post)
        self._run_id = run_id
        self._worker_ids = worker_ids
        self._policies = policies
        self._policies_wanted = self._policies_told = 0
        self._vigil = Vigil()
        self._connected = False
        self._retired: list[str] = []
        self._questions: deque[Question] = deque()

    def retire(self, worker_id: str) -> None:
        """This id of ours is not used any more: whatever it still holds in the database is free."""
        self._retired.append(worker_id)
        self.wake()

    def ask_policies(self) -> None:
        """Have the retry options of our steps told by a PoliciesSeen."""
        self._policies_wanted += 1
        self.wake()

    def ask(self, question: Question) -> None:
        """Have it answered by a ParkedSeen."""
        self._questions.append(question)
        self.wake()

    def _serve(self, conn: Connection) -> None:
        seldom = _SUBSTITUTE
        now = time.monotonic()
        again, self._connected = self._connected, True
        watch, recover, requeue = now, now, now + (_REQUEUE_EVERY if again else _REQUEUE_EVERY / 3)
        self._vigil.begin(now, again=again)
        while not self._stopping.is_set():
            now = time.monotonic()
            if self._retired:
                recovery.retire_worker(conn, self._retired[0])
                self._retired.pop(0)
            if (wanted := self._policies_wanted) > self._policies_told:
                self._post(PoliciesSeen(self._policies(conn)))
                self._policies_told = wanted
            while self._questions:
                question = self._questions[0]
                left = parked.report_parked(conn, self._worker_ids(), question.held)
                self._post(ParkedSeen(question.number, question.runs, left))
                self._questions.popleft()
            if self._run_id is not None and now >= watch:
                self._watch(conn, self._run_id)
                watch = _next(now, _WATCH_EVERY)
            if now >= recover:
                seldom = 1.0 if self._recover(conn, now) else _SUBSTITUTE
                recover = _next(now, _RECOVER_EVERY * seldom)
                self._vigil.next_look(recover)
            if now >= requeue:
                self._requeue(conn)
                requeue = _next(now, _REQUEUE_EVERY * seldom)
            self._keeper.worked()
            due = min(recover, requeue, watch if self._run_id is not None else recover)
            self._wakeup.wait(due - time.monotonic())

    def _recover(self, conn: Connection, now: float) -> bool:
        """Take over from the dead. True if we are the upkeeper: of those alive, ours is the first id.

        It may be stopped, or just have died, so the others look, too. A lock of a session would not tell:
        behind a pooler it is not ours.
        """
        ours, workers = self._worker_ids(), recovery.watched_workers(conn)
        over = self._vigil.look(workers, ours, now)
        if over and (count := recovery.recover_workers(conn, over)):
            self._post(Said("warn", f"took over {count} tasks of workers that are gone"))
        alive = (worker.worker_id for worker in workers if not worker.stopped and worker not in over)
        return min(alive, default="") in ("", *ours)

    def _requeue(self, conn: Connection) -> None:
        if count := recovery.requeue_stalled_tasks(conn):
            self._post(Said("warn", f"requeued {count} stalled tasks"))
        if count := recovery.fail_stalled_tasks(conn):
            self._post(Said("warn", f"gave up {count} tasks that stalled too often"))

    def _watch(self, conn: Connection, run_id: str) -> None:
        steps = engine.run_progress(conn, run_id)
        status = engine.run_status(conn, run_id)
        if status is None and conn.execute("select pg_is_in_recovery()").fetchone() == (True,):
            return  # a standby that lags does not know it yet
        self._post(RunSeen(run_id, status, steps))


def _next(began: float, every: float) -> float:
    """When to do again what began then: a piece of upkeep takes at most 1 % of the time."""
    now = time.monotonic()
    return max(began + every, now + _LEAST_REST * (now - began))
