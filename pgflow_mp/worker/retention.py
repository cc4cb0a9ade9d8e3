"""Old runs go while the worker works, a short transaction now and then, on a thread of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import psycopg

from pgflow_mp.db import connection
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.pruning import may_prune, prune_some
from pgflow_mp.errors import DatabaseError
from pgflow_mp.observe.text import plural
from pgflow_mp.worker.artifact_removal import remove_leftovers, unreachable_text
from pgflow_mp.worker.database_thread import DatabaseThread
from pgflow_mp.worker.inbox import Said

_LOOK_EVERY: Final = (1.0, 600.0)  # seconds: at least and at most, in between a tenth of what is kept
_REST: Final = 4  # a piece rests so many times as long as it took
_LEAST_REST: Final = 0.05


def check(conn: Connection) -> None:
    """Raise DatabaseError where our role may not remove runs."""
    if not may_prune(conn):
        raise DatabaseError(
            f"Role {conn.info.user} may not remove runs (permission denied for function prune_runs), "
            "which --keep does",
            hint="Leave --keep out, and remove them as another role by the command prune. Or have the right "
            "granted by the schema's owner: "
            f"select pgflow.grant_access({conn.info.user!r}, 'operator');",
        )


def _age(seconds: float) -> str:
    """A time in the unit that a person would have given it in."""
    units = ((86_400, "days"), (3600, "h"), (60, "min"), (1, "s"))
    size, unit = next(((size, unit) for size, unit in units if seconds >= 2 * size), units[-1])
    return f"{seconds / size:g} {unit}"


class Retention(DatabaseThread):
    """Lets go of runs of these flows that ended more than ``keep`` seconds ago, and of their artifacts.

    ``beside`` is where the embedded server's are.
    """

    who = "retention"

    def __init__(
        self,
        dsn: str,
        post: Callable[[Any], None],
        *,
        keep: float,
        flows: Iterable[str],
        beside: str | None = None,
    ) -> None:
        super().__init__(dsn, post)
        self._beside = beside
        self._said: set[str] = set()
        self._keep = keep
        self._flows = list(flows)

    def _serve(self, conn: Connection) -> None:
        runs, looked = 0, -_LOOK_EVERY[1]
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                pruned = prune_some(conn, self._keep, self._flows)
                if pruned.done and (runs or began > looked + _LOOK_EVERY[1]):
                    self._remove_artifacts(conn)
                    looked = began
            except psycopg.Error as error:
                if conn.broken or connection.passes_by_itself(error):
                    raise
                # A flow that was deleted at this moment, a right that is gone: no reason to end the worker.
                self._post(Said("warn", f"old runs cannot be removed: {str(error).partition(chr(10))[0]}"))
                self._wakeup.wait(_LOOK_EVERY[1])
                continue
            self._keeper.worked()
            runs += pruned.runs
            if pruned.done:
                if runs:
                    text = f"removed {plural(runs, 'run')} that ended more than {_age(self._keep)} ago"
                    self._post(Said("info", text))
                runs = 0
                rest = min(max(_LOOK_EVERY[0], self._keep / 10), _LOOK_EVERY[1])
            else:
                rest = max(_LEAST_REST, _REST * (time.monotonic() - began))
            self._wakeup.wait(rest)

    def _remove_artifacts(self, conn: Connection) -> None:
        found = remove_leftovers(conn, self._flows, self._beside)
        for place, reason in found.unreachable.items():
            if place not in self._said:
                self._said.add(place)
                self._post(Said("warn", unreachable_text(place, reason)))
