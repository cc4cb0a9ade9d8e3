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

from pgflow_mp.db import connection, engine, patience
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import CAP, Keeper, Stopped
from pgflow_mp.db.settling import Call
from pgflow_mp.worker.groups import FULL, FULL_BYTES, AnyGroup, GroupKey
from pgflow_mp.worker.inbox import (
    BatchSettled,
    ConnectionState,
    SettledCall,
    ThreadFailed,
    WorkAnnounced,
)
from pgflow_mp.worker.locked import PATIENCE, as_group
from pgflow_mp.worker.pulse import Pulse
from pgflow_mp.worker.recording import Recorder
from pgflow_mp.worker.releases import Release

T = TypeVar("T")

_IN_CALL: Final = 3.0  # times as long as other rounds a call, or connecting, may take
MIDST: Final = 2.0  # lingers that an outcome in the midst of a map may wait: nothing follows from it
MOST: Final = 2000  # items in a transaction
MOST_BYTES: Final = 16 << 20  # of bodies in a transaction, or one body
MOST_UNSETTLED: Final = 20_000  # items: beyond this the worker claims nothing more
MOST_UNSETTLED_BYTES: Final = 64 << 20  # ... nor hands anything more to a lane


class Settler(threading.Thread):
    """Records outcomes; tells ``post`` BatchSettled for each batch.

    Threads: what both sides touch (groups, releases, counters, flags) is touched with ``_changed`` held; a
    group is the thread's once it is taken, as are ``_keeper`` and ``_recorder``. ``released``, and whether
    anything is locked, is read by anyone.
    """

    def __init__(
        self,
        dsn: str,
        post: Callable[[Any], None],
        *,
        linger: float,
        is_shared: Callable[[str], bool] = lambda _run: False,
    ) -> None:
        super().__init__(name="pgflow-settle", daemon=True)
        self._post = post
        self._linger = linger
        self._changed = threading.Condition()
        self._groups: dict[GroupKey, AnyGroup] = {}
        self._releases: list[Release] = []
        self._due = 0.0  # when what waits is recorded, full or not
        self._waiting = self._waiting_load = self._waiting_bytes = 0  # items, in tasks, bytes
        self._sending = self._sending_load = self._sending_bytes = 0
        self._urgent = False
        self._closing = False
        self._give_up = threading.Event()
        self._farewell: tuple[str, ...] = ()
        self._keeper = Keeper(
            dsn,
            prepare=_prepare,
            on_state=self._on_state,
            passes=connection.passes_by_itself,
            stop=self._give_up,
            backoff=connection.Backoff(initial=0.02, cap=CAP),
        )
        self.pulse = Pulse("recording")
        self._recorder = Recorder(post, lambda: self.pulse.beat(_IN_CALL), is_shared)
        self._locked = self._recorder.locked
        self.released = 0
        """Items handed back so far."""

    # -- the main loop's side ----------------------------------------------------------------------

    def add(self, groups: Sequence[AnyGroup], size: int, patience: float = 1.0) -> None:
        """Take over outcomes with ``size`` bytes of bodies, to be recorded within ``patience`` lingers."""
        due = time.monotonic() + patience * self._linger
        with self._changed:
            first = not self._waiting
            self._put(groups, size)
            if first or due < self._due:
                self._due = due
                self._changed.notify()
            elif self._waiting_load >= FULL or self._waiting_bytes >= FULL_BYTES or self._locked:
                self._changed.notify()

    def _put(self, groups: Sequence[AnyGroup], size: int) -> None:
        for group in groups:
            self._waiting += group.count
            self._waiting_load += group.weight
            known = self._groups.setdefault(group.key, group)
            if known is not group:
                known.merge(group)
        self._waiting_bytes += size

    def release(self, release: Release) -> None:
        """Hand something back."""
        if release:
            with self._changed:
                self._releases.append(release)
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
        with self._changed:
            many = self._waiting_load + self._sending_load > MOST_UNSETTLED
        return many or self.heavy

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

    def _on_state(self, text: str) -> None:
        if text:  # the pauses between its tries may be longer than any patience with it
            self.pulse.rest()
        else:
            self.pulse.beat(_IN_CALL)
        self._post(ConnectionState("settle", text))

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
                    released = self._persist(functools.partial(_release, release))
                    with self._changed:
                        self._releases.pop(0)
                        if released is None:  # the others first
                            self._releases.append(release)
                            continue
                        self.released += released
                        self._post(WorkAnnounced(release.flow))
                if self._give_up.is_set() and self._releases:
                    raise Stopped
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
        self.pulse.rest()
        try:
            return self._await_work()
        finally:
            self.pulse.beat()

    def _await_work(self) -> bool:
        with self._changed:
            while True:
                if self._releases:
                    return True
                if self._waiting and (rest := self._rest()):
                    if self._give_up.is_set():
                        return False
                    self._changed.wait(rest)
                elif self._waiting:
                    full = self._waiting_load >= FULL or self._waiting_bytes >= FULL_BYTES
                    left = self._due - time.monotonic()
                    if full or self._urgent or self._closing or left <= 0:
                        return True
                    self._changed.wait(left)
                elif self._closing:
                    return False
                else:
                    self._changed.wait()

    def _rest(self) -> float:
        """Seconds until anything of what waits may be tried again."""
        if not self._locked or (self._closing and not self._give_up.is_set()):
            return 0.0
        now = time.monotonic()
        return min((self._locked.rest(key[0], now) for key in self._groups), default=0.0)

    def _take(self) -> tuple[list[Release], list[AnyGroup]]:
        """The next batch: groups up to MOST items or MOST_BYTES, at least one outcome."""
        with self._changed:
            taken: list[AnyGroup] = []
            count = load = size = 0
            now = time.monotonic()
            for key, group in list(self._groups.items()):
                if self._locked.rest(key[0], now) and not self._closing:
                    continue
                if taken and (load + group.weight > MOST or size >= MOST_BYTES):
                    break
                taken.append(self._groups.pop(key))
                if size + group.size > MOST_BYTES and (rest := group.cut(MOST_BYTES - size)) is not None:
                    self._groups[key] = rest
                count += group.count
                load += group.weight
                size += group.size
            self._waiting -= count
            self._waiting_bytes -= size
            self._waiting_load = sum(group.weight for group in self._groups.values())
            self._sending, self._sending_load, self._sending_bytes = count, load, size
            self._due = time.monotonic() + self._linger
            self._urgent = self._urgent and bool(self._groups)
            # Lock order: runs by id. Within a run completions first: a failure may end it.
            taken.sort(key=lambda group: (group.run, group.failures, group.step))
            return list(self._releases), taken

    def _record(self, calls: list[Call]) -> None:
        replays = 0
        locked: list[Call] = []

        def attempt(conn: Connection) -> list[SettledCall]:
            nonlocal replays
            replays += 1
            locked.clear()
            return self._recorder.settle(conn, calls, locked, replayed=replays > 1)

        settled = self._persist(attempt)
        with self._changed:
            self._sending = self._sending_load = self._sending_bytes = 0
            for group in map(as_group, locked):
                self._put([group], group.size)
            self._post(BatchSettled(settled, replays > 1))

    def _persist(self, work: Callable[[Connection], T]) -> T:
        """Do ``work``, again and again while its errors pass. Raises Stopped when there is no time left."""
        tries = 0
        self.pulse.beat(_IN_CALL)

        def attempt(conn: Connection) -> T:
            nonlocal tries
            patience.limit(conn, patience.SILENCE * 2 ** min(tries, 5))  # the work may just be slow
            tries += 1
            self.pulse.beat(_IN_CALL)
            return work(conn)

        return self._keeper.call(attempt)


def _prepare(conn: Connection) -> None:
    patience.limit_locks(conn, PATIENCE)


def _release(release: Release, conn: Connection) -> int | None:
    """How many were handed back; None: somebody keeps them locked."""
    try:
        return release.send(conn)
    except psycopg.errors.LockNotAvailable:
        return None
