"""Recording finished items: in large batches, in one round trip each, again after a lost connection.

The main loop adds outcomes; a thread with its own connection records them, ``linger`` seconds after the
first (longer in the midst of a map) or as soon as a batch is full. A batch is kept until the database
has confirmed it. Recording is fenced by worker and attempt, so a batch that is sent again changes nothing
it had changed before.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import psycopg

from pgflow_mp.db import connection, engine, patience, settling
from pgflow_mp.db.claiming import concerns_data
from pgflow_mp.db.engine import Connection, Settled
from pgflow_mp.db.keeper import CAP, Keeper, Stopped, first_line
from pgflow_mp.db.settling import Call, Completion, Failure
from pgflow_mp.worker.groups import FULL, FULL_BYTES, Group, Key, parts_of
from pgflow_mp.worker.inbox import (
    BatchSettled,
    ConnectionState,
    Said,
    SettledCall,
    ThreadFailed,
    WorkAnnounced,
)

T = TypeVar("T")

MOST: Final = 2000  # items in a transaction
MOST_BYTES: Final = 16 << 20  # of bodies in a transaction, or one body
MOST_UNSETTLED: Final = 20_000  # items: beyond this the worker claims nothing more
MOST_UNSETTLED_BYTES: Final = 64 << 20  # ... nor hands anything more to a lane
_TIGHT: Final = 5  # times that one item may run the server out of memory


class Settler(threading.Thread):
    """Records outcomes; tells ``post`` BatchSettled for each batch.

    Threads: what both sides touch (groups, releases, counters, flags) is touched with ``_changed`` held; a
    group is the thread's once it is taken, as are ``_keeper`` and ``_tight``. ``released`` is read by anyone.
    """

    def __init__(self, dsn: str, post: Callable[[Any], None], *, linger: float) -> None:
        super().__init__(name="pgflow-settle", daemon=True)
        self._post = post
        self._linger = linger
        self._changed = threading.Condition()
        self._groups: dict[Key, Group] = {}
        self._releases: list[tuple[str, str, list[int]]] = []
        self._due = 0.0  # when what waits is recorded, full or not
        self._waiting = 0
        self._waiting_bytes = 0
        self._sending = 0
        self._sending_bytes = 0
        self._urgent = False
        self._closing = False
        self._give_up = threading.Event()
        self._farewell: tuple[str, ...] = ()
        self._keeper = Keeper(
            dsn,
            on_state=lambda text: post(ConnectionState("settle", text)),
            passes=connection.passes_by_itself,
            stop=self._give_up,
            backoff=connection.Backoff(initial=0.02, cap=CAP),
        )
        self._tight = 0
        self.released = 0
        """Items handed back so far."""

    # -- the main loop's side ----------------------------------------------------------------------

    def add(self, groups: Sequence[Group], size: int, patience: float = 1.0) -> None:
        """Take over outcomes with ``size`` bytes of bodies, to be recorded within ``patience`` lingers."""
        count = sum(len(group.indexes) for group in groups)
        due = time.monotonic() + patience * self._linger
        with self._changed:
            for group in groups:
                key = (group.run, group.step, group.worker_id, group.failures)
                known = self._groups.setdefault(key, group)
                if known is not group:
                    known.indexes += group.indexes
                    known.attempts += group.attempts
                    known.bodies += group.bodies
                    known.permanent += group.permanent
            first = not self._waiting
            self._waiting += count
            self._waiting_bytes += size
            if first or due < self._due:
                self._due = due
                self._changed.notify()
            elif self._waiting >= FULL or self._waiting_bytes >= FULL_BYTES:
                self._changed.notify()

    def release(self, flow: str, worker_id: str, msg_ids: list[int]) -> None:
        """Hand tasks back."""
        if msg_ids:
            with self._changed:
                self._releases.append((flow, worker_id, msg_ids))
                self._changed.notify()

    def flush(self) -> None:
        """Do not wait for more."""
        with self._changed:
            if self._waiting and not self._urgent:
                self._urgent = True
                self._changed.notify()

    @property
    def unsettled(self) -> int:
        """Items that are not confirmed yet. What is confirmed has been posted."""
        with self._changed:
            return self._waiting + self._sending

    @property
    def busy(self) -> bool:
        """Whether anything is to be recorded or handed back."""
        with self._changed:
            return bool(self._waiting or self._sending or self._releases)

    @property
    def saturated(self) -> bool:
        """Whether so much is unsettled that no more work should be taken on."""
        return self.unsettled > MOST_UNSETTLED or self.heavy

    @property
    def heavy(self) -> bool:
        """Whether what is unsettled takes so much memory that no more results should come."""
        with self._changed:
            return self._waiting_bytes + self._sending_bytes > MOST_UNSETTLED_BYTES

    def holds(self, worker_id: str) -> bool:
        """Whether anything of this worker id is unsettled."""
        with self._changed:
            return self._sending > 0 or any(key[2] == worker_id for key in self._groups)

    def close(self, farewell: Sequence[str], timeout: float) -> bool:
        """Settle what is left, mark these worker ids as stopped, end; False if ``timeout`` s do not do."""
        with self._changed:
            self._closing = True
            self._farewell = tuple(farewell)
            self._changed.notify()
        if self.ident is not None:  # else it was never started
            self.join(timeout)
            self._give_up.set()
            self.join(1.0)
        return not (self.unsettled or self._releases or self._farewell)

    # -- the thread --------------------------------------------------------------------------------

    def run(self) -> None:
        """The thread."""
        try:
            while self._wait():
                releases, groups = self._take()
                calls = [call for group in groups for call in group.calls()]
                if calls:
                    self._record(calls)
                for release in releases:
                    self.released += self._persist(functools.partial(_release, release))
                    with self._changed:
                        self._releases.pop(0)
                        self._post(WorkAnnounced(release[0]))
            if self._farewell:
                self._persist(lambda conn: engine.stop_workers(conn, self._farewell))
                self._farewell = ()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - the main loop ends the worker
            self._post(ThreadFailed("settle", error))
        finally:
            self._keeper.close()

    def _wait(self) -> bool:
        """Until there is something to do; False at the end."""
        with self._changed:
            while True:
                if self._releases:
                    return True
                if self._waiting:
                    full = self._waiting >= FULL or self._waiting_bytes >= FULL_BYTES
                    left = self._due - time.monotonic()
                    if full or self._urgent or self._closing or left <= 0:
                        return True
                    self._changed.wait(left)
                elif self._closing:
                    return False
                else:
                    self._changed.wait()

    def _take(self) -> tuple[list[tuple[str, str, list[int]]], list[Group]]:
        """The next batch: groups up to MOST items or MOST_BYTES, at least one outcome."""
        with self._changed:
            taken: list[Group] = []
            count = size = 0
            for key, group in list(self._groups.items()):
                if taken and (count + len(group.indexes) > MOST or size >= MOST_BYTES):
                    break
                taken.append(self._groups.pop(key))
                if size + group.size > MOST_BYTES and (rest := group.cut(MOST_BYTES - size)) is not None:
                    self._groups[key] = rest
                count += len(group.indexes)
                size += group.size
            self._waiting -= count
            self._waiting_bytes -= size
            self._sending, self._sending_bytes = count, size
            self._due = time.monotonic() + self._linger
            self._urgent = self._urgent and bool(self._groups)
            # Lock order: runs by id. Within a run completions first: a failure may end it.
            taken.sort(key=lambda group: (group.run, group.failures, group.step))
            return list(self._releases), taken

    def _record(self, calls: list[Call]) -> None:
        replays = 0

        def attempt(conn: Connection) -> list[SettledCall]:
            nonlocal replays
            replays += 1
            return self._settle(conn, calls, replayed=replays > 1)

        settled = self._persist(attempt)
        with self._changed:
            self._sending = self._sending_bytes = 0
            self._post(BatchSettled(settled, replays > 1))

    def _settle(self, conn: Connection, calls: list[Call], *, replayed: bool) -> list[SettledCall]:
        done: list[SettledCall] = []
        while calls:
            refused: list[Call] = []
            done += self._settle_all(conn, calls, refused, replayed=replayed)
            calls = refused  # last, since a failure may end its run
        return done

    def _settle_all(
        self, conn: Connection, calls: list[Call], refused: list[Call], *, replayed: bool
    ) -> list[SettledCall]:
        started = time.monotonic()
        try:
            results = settling.settle(conn, calls)
        except (psycopg.Error, MemoryError) as error:
            parts = parts_of(calls)
            if self._passes(conn, error, alone=not parts):
                raise
            if not parts and not concerns_data(error):
                raise
            if not parts:
                refused += self._refused(calls[0], error)
            return [
                done for part in parts for done in self._settle_all(conn, part, refused, replayed=replayed)
            ]
        seconds = (time.monotonic() - started) / len(calls)
        return [
            self._report(conn, call, result, seconds, replayed=replayed)
            for call, result in zip(calls, results, strict=True)
        ]

    def _passes(self, conn: Connection, error: psycopg.Error | MemoryError, *, alone: bool) -> bool:
        """Whether it may pass by itself: of memory that is short, other items may have been the cause."""
        if isinstance(error, MemoryError) or conn.broken:
            return conn.broken
        if not isinstance(error, psycopg.errors.OutOfMemory):
            return connection.is_transient(error)
        self._tight += alone
        return alone and self._tight < _TIGHT

    def _refused(self, call: Call, error: psycopg.Error | MemoryError) -> list[Call]:
        """What to record for the one item of a call that the database refuses to record."""
        name = f'step "{call.step_slug}" task {call.indexes[0]}'
        self._tight = 0
        if isinstance(call, Completion):
            size = f" ({len(call.outputs[0]) / 1e6:.1f} MB)" if len(call.outputs[0]) >= 1e5 else ""
            text = f"The database refuses the output{size} of {name}: {first_line(error)}"
            self._post(Said("error", text))
            return [Failure(*call[:5], [text], [True])]
        if call.errors[0] != _UNSTORABLE:
            return [call._replace(errors=[_UNSTORABLE])]
        self._post(Said("error", f"The database does not let {name} fail: {first_line(error)}"))
        return []

    def _report(
        self, conn: Connection, call: Call, result: Settled, seconds: float, *, replayed: bool
    ) -> SettledCall:
        late = len(result.rejected)
        if late and replayed:
            before = settling.already_settled(conn, call, result.rejected)
            late -= before
            result = result._replace(accepted=result.accepted + before)
        failures = isinstance(call, Failure)
        return SettledCall(call.run_id, call.step_slug, call.worker_id, failures, result, late, seconds)

    def _persist(self, work: Callable[[Connection], T]) -> T:
        """Do ``work``, again and again while its errors pass. Raises Stopped when there is no time left."""
        tries = 0

        def attempt(conn: Connection) -> T:
            nonlocal tries
            patience.limit(conn, patience.SILENCE * 2 ** min(tries, 5))  # the work may just be slow
            tries += 1
            return work(conn)

        return self._keeper.call(attempt)


def _release(release: tuple[str, str, list[int]], conn: Connection) -> int:
    flow, worker_id, msg_ids = release
    return engine.release_tasks(conn, flow, worker_id, msg_ids)


_UNSTORABLE: Final = "The task failed with an error that the database cannot store"
