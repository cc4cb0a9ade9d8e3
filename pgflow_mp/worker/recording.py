"""Recording a batch: what the database refuses of it costs nothing else, what somebody locks waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import compress
from operator import not_
from typing import Any, Final

import psycopg

from pgflow_mp.db import connection, item_ranges, settling
from pgflow_mp.db.claiming import concerns_data
from pgflow_mp.db.engine import Connection, Settled
from pgflow_mp.db.item_ranges import RangeCompletion, RangeFailure, items_of
from pgflow_mp.db.keeper import first_line
from pgflow_mp.db.settling import Call, Completion, Failure
from pgflow_mp.worker.groups import parts_of
from pgflow_mp.worker.inbox import Said, SettledCall
from pgflow_mp.worker.locked import Locked, runs_of

_TIGHT: Final = 5  # times that one item may run the server out of memory
_UNSTORABLE: Final = "The task failed with an error that the database cannot store"


class Recorder:
    """Records calls; ``post`` hears of what is refused. ``locked``: when locked runs are tried again.

    ``beat`` is called before each transaction; ``is_shared`` tells of a run whether others work on it, too.
    """

    def __init__(
        self,
        post: Callable[[Any], None],
        beat: Callable[[], None],
        is_shared: Callable[[str], bool] = lambda _run: False,
    ) -> None:
        self._post = post
        self._beat = beat
        self._is_shared = is_shared
        self._tight = 0
        self.locked = Locked()

    def settle(
        self, conn: Connection, calls: list[Call], locked: list[Call], *, replayed: bool
    ) -> list[SettledCall]:
        """Record calls; those of runs that somebody keeps locked go to ``locked`` instead.

        ``replayed``: perhaps they are recorded already. Raises what is not about a call, or passes by itself.
        """
        done: list[SettledCall] = []
        while calls:
            refused: list[Call] = []
            done += self._settle_all(conn, calls, refused, locked, replayed=replayed)
            calls = refused  # last, since a failure may end its run
        return done

    def _settle_all(
        self,
        conn: Connection,
        calls: list[Call],
        refused: list[Call],
        locked: list[Call],
        *,
        replayed: bool,
    ) -> list[SettledCall]:
        self._beat()
        started = time.monotonic()
        try:
            results = settling.settle(conn, calls, early=self._is_shared(calls[0].run_id))
        except (psycopg.Error, MemoryError) as error:
            if isinstance(error, psycopg.errors.LockNotAvailable):
                parts = runs_of(calls)
                if len(parts) == 1:
                    self._found_locked(calls[0].run_id)
                    locked += calls
                    return []
            else:
                parts = self._parts(conn, calls, refused, error)
            return [
                done
                for part in parts
                for done in self._settle_all(conn, part, refused, locked, replayed=replayed)
            ]
        seconds = (time.monotonic() - started) / len(calls)
        for call in calls:
            self.locked.freed(call.run_id)
        return [
            self._report(conn, call, result, seconds, refused, replayed=replayed)
            for call, result in zip(calls, results, strict=True)
        ]

    def _parts(
        self, conn: Connection, calls: list[Call], refused: list[Call], error: psycopg.Error | MemoryError
    ) -> list[list[Call]]:
        """What to try apart, after an error that is about some of the calls; raises all others."""
        parts = parts_of(calls)
        if self._passes(conn, error, alone=not parts):
            raise error
        if not parts and not concerns_data(error):
            raise error
        if not parts:
            refused += self._refused(calls[0], error)
        return parts

    def _found_locked(self, run: str) -> None:
        if self.locked.found(run, time.monotonic()):
            text = f"run {run} is locked by somebody's transaction: what is to be recorded of it waits"
            self._post(Said("warn", text))

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
        index = call.firsts[0] if isinstance(call, RangeCompletion) else call.indexes[0]
        name = f'step "{call.step_slug}" task {index}'
        self._tight = 0
        if isinstance(call, Completion | RangeCompletion):
            size = f" ({len(call.outputs[0]) / 1e6:.1f} MB)" if len(call.outputs[0]) >= 1e5 else ""
            text = f"The database refuses the output{size} of {name}: {first_line(error)}"
            self._post(Said("error", text[:1].lower() + text[1:]))
            if isinstance(call, RangeCompletion):
                return [RangeFailure(*call[:3], call.lease_nos, [index], [text], [True])]
            return [Failure(*call[:5], [text], [True], call.msg_ids)]
        if call.errors[0] != _UNSTORABLE:
            return [call._replace(errors=[_UNSTORABLE])]
        self._post(Said("error", f"the database does not let {name} fail: {first_line(error)}"))
        return []

    def _report(
        self,
        conn: Connection,
        call: Call,
        result: Settled,
        seconds: float,
        again: list[Call],
        *,
        replayed: bool,
    ) -> SettledCall:
        """What became of a call. What of a replayed one was recorded before counts as accepted.

        Where that is a piece of a part, the others are put into ``again``.
        """
        lost = result.rejected
        late = items_of(call, lost)
        if late and replayed:
            if isinstance(call, RangeCompletion):
                left, lost = self._left(conn, call, result)
                before = late - items_of(call, lost) - sum(left.counts)
                if left.firsts:
                    again.append(left)
            elif isinstance(call, RangeFailure):
                known = item_ranges.already_failed(conn, call, lost)
                before = len(known)
                lost = [index for index in lost if index not in known]
            else:
                before = settling.already_settled(conn, call, lost)
                late -= before
            if isinstance(call, RangeCompletion | RangeFailure):
                late = items_of(call, lost)
            result = result._replace(accepted=result.accepted + before)
        failures = isinstance(call, Failure | RangeFailure)
        of_leases = lost if isinstance(call, RangeCompletion | RangeFailure) else ()
        return SettledCall(
            call.run_id, call.step_slug, call.worker_id, failures, result, late, seconds, of_leases
        )

    def _left(
        self, conn: Connection, call: RangeCompletion, result: Settled
    ) -> tuple[RangeCompletion, list[int]]:
        """Pieces of refused parts that are to be recorded still, and the first items of lost ones."""
        parts = dict(zip(call.firsts, call.counts, strict=True))
        found = item_ranges.unrecorded(conn, call, result.rejected)
        whole = [parts.get(first) == count for first, count in zip(found.firsts, found.counts, strict=True)]
        lost = [first for first, is_whole in zip(found.firsts, whole, strict=True) if is_whole]
        pieces: list[Any] = [list(compress(values, map(not_, whole))) for values in found[3:]]
        return RangeCompletion(*call[:3], *pieces), lost
