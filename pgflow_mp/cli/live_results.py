"""run --follow: lines of the results of maps are written as items end, while the run is executed here."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Final

from pgflow_mp.cli.asked import Asked, is_followed, open_file, open_target

if TYPE_CHECKING:
    from pgflow_mp.cli.connecting import OpenDatabase
    from pgflow_mp.cli.wanted_items import WantedItems

_PLAIN: Final = ("index", "status", "output", "error")


class _NotCompleted(Exception):
    """There is nothing to be kept of what was written."""


class LiveResults:
    """Writes what of ``asked`` is lines of a map's results, in the order in which items end.

    Threads: begin() is called by the worker's, once or several times, end() by whoever made it; each file has
    a thread of its own in between, and is its alone.
    """

    def __init__(self, asked: Sequence[Asked], database: OpenDatabase, results: IO[str]) -> None:
        self._asked = [each for each in asked if is_followed(each)]
        self._database = database
        self._results = results
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        self.written: list[Asked] = []
        """What is whole, once it has ended."""
        self.errors: dict[Asked, Exception] = {}

    def begin(self, run_id: str) -> None:
        """The run is stored."""
        if not self._threads:
            for asked in self._asked:
                thread = threading.Thread(target=self._follow, args=(asked, run_id), name="pgflow-follow")
                self._threads.append(thread)
                thread.start()

    def end(self, *, completed: bool) -> None:
        """The run is left: wait until all of one that has completed is written. Raises BrokenPipeError."""
        if not completed:
            self._over.set()
        for thread in self._threads:
            thread.join()
        for error in self.errors.values():
            if isinstance(error, BrokenPipeError):  # its reader wants no more
                raise error

    def _follow(self, asked: Asked, run_id: str) -> None:
        from pgflow_mp.cli.follow import write_ended
        from pgflow_mp.client.following import Follower
        from pgflow_mp.db import schema
        from pgflow_mp.db.keeper import Keeper

        try:
            with (
                Keeper(self._database.dsn, prepare=schema.check) as keeper,
                open_target(asked.name, self._results, "") as target,
                open_file(target, "") as file,
            ):
                follower = Follower(keeper, run_id, str(asked.step), to_the_end=True, check=self._check)
                write_ended(follower, plain(), file)
                if follower.run.status != "completed":
                    raise _NotCompleted
        except _NotCompleted:
            return
        except Exception as error:  # noqa: BLE001 - told once the run has ended
            self.errors[asked] = error
            return
        self.written.append(asked)

    def _check(self) -> None:
        if self._over.is_set():
            raise _NotCompleted


def plain() -> WantedItems:
    """The outputs of all items, as they are."""
    from pgflow_mp.cli.wanted_items import WantedItems

    return WantedItems(_PLAIN, None, None, follow=True, inputs=False, any=False)
