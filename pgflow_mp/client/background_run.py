"""A run that is worked on in a thread of its own, beside whoever reads its items, until nobody does."""

from __future__ import annotations

import atexit
import contextlib
import threading
from importlib import import_module
from typing import Final

import psycopg

from pgflow_mp import runner
from pgflow_mp.client.endings_of_runs import unfinished
from pgflow_mp.db import engine, pruning
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import Keeper, ask, first_line
from pgflow_mp.errors import DatabaseError
from pgflow_mp.flows.flow import Flow
from pgflow_mp.observe.observer import Observer
from pgflow_mp.run_request import RunRequest, RunSummary, StateDatabase
from pgflow_mp.worker.artifact_removal import remove_leftovers
from pgflow_mp.worker.worker import Worker

_LEFT: Final = "The loop over its items was left"
_PATIENCE: Final = 2.0
"""Seconds that items have which nobody wants any more, before their processes are killed."""


class BackgroundRun:
    """A worker that executes a run in a thread of its own.

    Threads: ``_work`` and ``_serving`` are the worker's, all else is for the one that reads the items, which
    learns by ``_begun`` and by the thread's end; ``leave`` is the main thread's when the process ends.
    """

    def __init__(
        self,
        flow: Flow,
        database: StateDatabase,
        request: RunRequest,
        observer: Observer | None,
        *,
        keep: bool,
    ) -> None:
        self._flow = flow
        self._database = database
        self._request = request
        self._observer = observer
        self._keep = keep
        self._worker: Worker | None = None
        self._begun = threading.Event()
        self._is_stopping = self._is_unwanted = self._is_gone = False
        self._summary: RunSummary | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="pgflow-imap", daemon=True)

    def start(self) -> None:
        """Begin to work; returns once the run is stored. Raises what kept it from being so."""
        _watch_the_end()
        _under_way.add(self)
        self._thread.start()
        self._begun.wait()
        self.check()

    def check(self) -> None:
        """Raise what has ended the worker, unless that is the run's end."""
        if self._error is not None:
            raise self._error
        if self._summary is not None and self._summary.status == "started":
            raise unfinished(self._flow, self._summary)

    def finish(self) -> None:
        """Wait for the run's end, and raise what ``run()`` would."""
        self._thread.join()
        self.check()
        if self._summary is not None and self._summary.status == "failed":
            raise unfinished(self._flow, self._summary)

    def cancel(self) -> None:
        """End the run, which nobody wants any more, as failed; one that has ended stays as it is."""
        if self._is_gone:
            return
        self._is_unwanted = True
        with contextlib.suppress(DatabaseError, psycopg.Error), Keeper(self._database.dsn) as keeper:
            engine.cancel_run(keeper.begin(), str(self._request.run_id), _LEFT)

    def stop(self) -> None:
        """Have the worker stop, in order, and wait for that."""
        if self._thread.ident is None or self._is_gone:
            return
        self._ask_to_stop()
        try:
            self._thread.join(_PATIENCE if self._is_unwanted else None)
        finally:  # a second Ctrl-C, or items that go on
            if self._thread.is_alive():
                self._ask_to_stop()
                self._thread.join()

    def clean_up(self) -> None:
        """Have nothing be left of a run that is not kept. Raises DatabaseError."""
        _under_way.discard(self)
        if self._keep or self._is_gone:
            return
        run_id = str(self._request.run_id)

        def remove(conn: Connection) -> None:
            if engine.run_status(conn, run_id) == "started":
                engine.cancel_run(conn, run_id, _LEFT)
            pruning.remove_run(conn, run_id)
            remove_leftovers(conn, [self._request.flow], self._database.artifacts)

        try:
            ask(self._database.dsn, remove)
        except psycopg.Error as error:
            raise DatabaseError(
                f"Run {run_id} could not be removed: {first_line(error)}",
                hint="Remove it later with delete(), or keep it.",
            ) from error

    def leave(self) -> None:
        """The process ends, and the loop will not go on."""
        self.cancel()
        self.stop()
        with contextlib.suppress(DatabaseError):
            self.clean_up()
        self._is_gone = True

    def _ask_to_stop(self) -> None:
        self._is_stopping = True
        if self._worker is not None:
            self._worker.request_stop()

    def _work(self) -> None:
        try:
            self._summary = runner.execute(
                self._database,
                self._request,
                observer=self._observer,
                begun=lambda _conn: self._begun.set(),
                serving=self._serving,
            )
        except BaseException as error:  # noqa: BLE001 - raised by check()
            self._error = error
        self._begun.set()

    def _serving(self, worker: Worker) -> None:
        self._worker = worker
        if self._is_stopping:
            worker.request_stop()


_under_way: Final[set[BackgroundRun]] = set()
_is_watched = False


def _watch_the_end() -> None:
    """Have loops be left when the process ends.

    Before the pools of concurrent.futures, in which the worker has its processes, are waited for: that is
    before atexit, and in the reverse of the order in which they were imported.
    """
    global _is_watched
    if not _is_watched:
        for pool in ("process", "thread"):
            import_module(f"concurrent.futures.{pool}")
        getattr(threading, "_register_atexit", atexit.register)(_leave_all)
        _is_watched = True


def _leave_all() -> None:
    for background in list(_under_way):
        background.leave()
