"""Signs of life and upkeep, each on a thread and connection of its own so that nothing delays them.

Heartbeat: refreshes the worker's rows, extends the leases of what is held, listens for cancelled runs.
Upkeep: takes over the tasks of dead workers, requeues stalled ones and fails those that stall too often, for
the whole database, where this worker is the one that does it (contract: worker section 2, "stalled tasks");
has scheduled runs started; watches the served run, and those of which items are parked.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import psycopg

from pgflow_mp.db import engine, parked, patience, recovery
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.hints import REST, Hints
from pgflow_mp.db.reads import runs
from pgflow_mp.observe.observer import Level
from pgflow_mp.worker.batches import Lease
from pgflow_mp.worker.database_thread import DatabaseThread
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.inbox import (
    Deprecated,
    LeasesLost,
    MapsOver,
    ParkedSeen,
    PoliciesSeen,
    Said,
    TakenForDead,
)
from pgflow_mp.worker.parking import Question
from pgflow_mp.worker.pulse import PulseWatch
from pgflow_mp.worker.reporting import Reporter
from pgflow_mp.worker.run_watch import RunWatch
from pgflow_mp.worker.scheduling import Scheduling
from pgflow_mp.worker.stack_answers import StackAnswers
from pgflow_mp.worker.startup import Policies
from pgflow_mp.worker.vigil import Vigil
from pgflow_mp.worker.work_record import WorkReport

_log: Final = logging.getLogger("pgflow_mp")

_STATEMENT_LIMIT: Final = 5  # seconds
_RECOVER_EVERY: Final = 3.0
_REQUEUE_EVERY: Final = 15.0
_SUBSTITUTE: Final = 2.0  # times as long between rounds of those that are not the upkeeper
_WAY: Final = 1.0  # seconds by which they come after it where somebody falls silent
_LEAST_REST: Final = 100  # upkeep rests this many times as long as it took
_LOOK_EVERY: Final = 0.5
_LOOK_ANYHOW: Final = 3.0  # seconds between looks at the maps in ranges of which anything is held
_MOST_RUNS: Final = 50  # runs whose steps are looked at
_GLANCE: Final = 0.3  # seconds between looks at a worker that stands still
_UUID: Final = 36  # characters


class Heartbeat(DatabaseThread):
    """Keeps this worker alive in the eyes of the others.

    ``worker_ids`` are asked for at every beat, ``held`` knows what is to be extended. Both are called on
    this thread and answer with what nobody changes; ``last`` is written here, read by anyone. An id whose
    row somebody has deleted is registered again by ``register``, on this thread, too. While a thread that
    ``watch`` watches stands still, there is no beat, and no lease is extended.
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
        watch: PulseWatch | None = None,
    ) -> None:
        super().__init__(dsn, post)
        self._register = register
        self._pulses = watch or PulseWatch((), 1.0)
        self._is_still = False
        self._interval = interval
        self._worker_ids = worker_ids
        self._held = held
        self._looked_at = ""  # the last run
        self.last = time.monotonic()
        """When the last heartbeat was confirmed."""

    def _serve(self, conn: Connection) -> None:
        patience.limit_statements(conn, _STATEMENT_LIMIT)
        patience.limit_locks(conn, 1.0)
        hints = Hints(conn, "pgflow_cancelled", lambda run: run if len(run) == _UUID else None)
        due = look = rested = 0.0
        anyhow = time.monotonic() + _LOOK_ANYHOW
        while not self._stopping.is_set():
            now = time.monotonic()
            if self._stands_still(now):
                due = now + _GLANCE
            elif now >= due:
                self._beat(conn)
                due = now + min(self._interval, self._extend(conn))
            hinted = hints.read()
            if hinted and now >= look:
                self._look(conn, hints.take())
                look, hinted = time.monotonic() + _LOOK_EVERY, False
            elif now >= anyhow:
                self._look_at_maps(conn, None)
                anyhow = time.monotonic() + _LOOK_ANYHOW
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
        """Whether what we hold of runs is ours still: all that are over, or those that were ``hinted`` at.

        The leases of a run's batches tell which of the tasks are not ours any more: those that were claimed
        after it was retried are. A run that goes on may be hinted at since some of its steps were set back.
        """
        held = self._held.held_runs()
        named = {run for run in held if hinted is None or run.encode() in hinted}
        if not named:
            return
        over = named
        if hinted is None:
            over = {run.run_id for run in runs.run_heads(conn, named) if run.status != "started"}
        for lease in self._held.leases_of(over):
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                self._extend_one(conn, lease)

        self._look_at_maps(conn, named)

    def _look_at_maps(self, conn: Connection, named: Collection[str] | None) -> None:
        """Whether maps in ranges that we hold items of are over: those of these runs, or of any.

        Nothing is extended of them that would tell.
        """
        maps = {of for of in self._held.held_maps() if named is None or of[0] in named}
        over: set[tuple[str, str]] = set()
        for run in self._next_of({run for run, _ in maps}):
            if engine.run_status(conn, run) != "started":
                over |= {of for of in maps if of[0] == run}
            else:
                steps = engine.run_progress(conn, run)
                over |= maps & {(run, step.step_slug) for step in steps if step.status != "started"}
        if over:
            self._post(MapsOver(frozenset(over)))

    def _next_of(self, found: Collection[str]) -> list[str]:
        """As many of these runs as are looked at; those that come after the last one, first."""
        in_turn = sorted(found, key=lambda run: (run <= self._looked_at, run))[:_MOST_RUNS]
        self._looked_at = in_turn[-1] if in_turn else ""
        return in_turn

    def _stands_still(self, now: float) -> bool:
        """Whether a thread that is watched does; says so when it begins and when it ends."""
        who = self._pulses.look(now)
        if who is not None and not self._is_still:
            text = f"{who} stands still: no sign of life is given until it goes on, others may take over"
            self._say("error", text)
        elif who is None and self._is_still:
            self._say("warn", "the worker goes on, and sends heartbeats again")
        self._is_still = who is not None
        return self._is_still

    def _say(self, level: Level, text: str) -> None:
        """Say it in the log, too: the main loop may be what cannot pass it on."""
        _log.log(logging.ERROR if level == "error" else logging.WARNING, text)
        self._post(Said(level, text))

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
    ``details``: more is told of the run. ``reporter`` passes on what the work record has to tell,
    ``answers`` tells who asks where our code is.
    Threads: retire(), ask(), ask_policies(), is_behind(), ask_runs() and tell() are for others. What they
    append to, this thread alone takes from.
    """

    who = "upkeep"

    def __init__(
        self,
        dsn: str,
        post: Callable[[Any], None],
        *,
        run_id: str | None,
        details: bool = False,
        reporter: Reporter | None = None,
        answers: StackAnswers | None = None,
        worker_ids: Callable[[], Sequence[str]] = tuple,
        policies: Callable[[Connection], Policies] = lambda _conn: {},
    ) -> None:
        super().__init__(dsn, post)
        self._run_watch = RunWatch(run_id, post, details=details)
        self._reporter, self._answers = reporter, answers
        self._worker_ids = worker_ids
        self._policies = policies
        self._policies_wanted = self._policies_told = 0
        self._vigil = Vigil()
        self._scheduling = Scheduling(post)
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

    def ask_runs(self, asked: Sequence[str]) -> None:
        """Have the status of these runs told by a RunsSeen, some time."""
        self._run_watch.ask(asked)

    def is_behind(self) -> bool:
        """Whether reports of our work wait to be told."""
        return self._reporter is None or self._reporter.full()

    def tell(self, report: WorkReport) -> None:
        """Have the database told of our work."""
        if self._reporter is not None:
            self._reporter.add(report)
            self.wake()

    def ask(self, question: Question) -> None:
        """Have it answered by a ParkedSeen."""
        self._questions.append(question)
        self.wake()

    def _serve(self, conn: Connection) -> None:
        seldom = _SUBSTITUTE
        now = time.monotonic()
        again, self._connected = self._connected, True
        recover, requeue = now, now + (_REQUEUE_EVERY if again else _REQUEUE_EVERY / 3)
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
            if self._reporter is not None:
                self._reporter.tell(conn)
            if self._answers is not None:
                self._answers.tick(conn)
            if now >= self._run_watch.due:
                self._run_watch.tick(conn)
            if now >= recover:
                seldom = 1.0 if self._recover(conn, now) else _SUBSTITUTE
                death = self._vigil.first_death + _WAY * (seldom - 1.0)  # the upkeeper goes first
                recover = _next(now, min(_RECOVER_EVERY * seldom, death - now))
                self._vigil.next_look(recover)
            if now >= requeue:
                self._requeue(conn)
                requeue = _next(now, _REQUEUE_EVERY * seldom)
            if now >= self._scheduling.due:
                self._scheduling.tick(conn)
            self._keeper.worked()
            due = min(recover, requeue, self._scheduling.due, self._run_watch.due)
            self._wakeup.wait(due - time.monotonic(), conn.fileno())
        if self._reporter is not None:
            self._reporter.tell(conn)

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


def _next(began: float, every: float) -> float:
    """When to do again what began then: a piece of upkeep takes at most 1 % of the time."""
    now = time.monotonic()
    return max(began + every, now + _LEAST_REST * (now - began))
