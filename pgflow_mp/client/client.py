"""Starting runs and following them from anywhere (contract: worker section 7).

    with Client(dsn) as client:
        run = client.start_flow("word_count", ["one line", "another line"])
        print(run.wait().output)

Nothing is executed here: a worker that serves the flow does that.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import psycopg

from pgflow_mp.client import feeding_items, keyed_runs
from pgflow_mp.client.finished_items import finished_items
from pgflow_mp.client.following import Follower
from pgflow_mp.client.retried import Indexes, Retry, choice_of
from pgflow_mp.client.reuse import reuse_of
from pgflow_mp.client.run_handles import Run, check_step
from pgflow_mp.db import connection, engine, patience, schema
from pgflow_mp.db.connection import Backoff
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.hints import Hints
from pgflow_mp.db.keeper import Keeper, first_line
from pgflow_mp.db.reads import documents, runs
from pgflow_mp.db.retrying import retry_items
from pgflow_mp.db.starting import start_once
from pgflow_mp.errors import ConfigError, DatabaseUnavailable, InputError, RunNotFound
from pgflow_mp.flows.finished_item import FinishedItem
from pgflow_mp.flows.flow import Flow
from pgflow_mp.loading import reentry
from pgflow_mp.observe import grouping
from pgflow_mp.observe.reports import FailureGroup
from pgflow_mp.values.inputs import encode_input

_POLL: Final = 1.0  # seconds between looks when no event arrives
_HEED: Final = (0.01, 0.2)  # seconds, least and most, between looks when events arrive
_RETRY_FOR: Final = 30.0  # seconds to wait for a database that is away
_PAUSES: Final = (0.05, 1.0)  # seconds, the first and the longest between tries: somebody waits

T = TypeVar("T")


class Client:
    """A connection to the database of the workers; opened on first use, and again when it is lost.

    ``dsn``: a connection string; None looks into PGFLOW_DATABASE_URL, DATABASE_URL and the libpq
    environment. May be used from several threads. Raises ConfigError if there is no database to use,
    and DatabaseError from every call that does not get through within 30 s.
    """

    def __init__(self, dsn: str | None = None) -> None:
        found = connection.discover_dsn(dsn)
        if found is None:
            hint = (
                "Give a connection string, or set PGFLOW_DATABASE_URL. For the embedded one: from "
                "pgflow_mp.embedded.server import EmbeddedServer, then: with EmbeddedServer() as server, "
                "Client(server.dsn) as client"
            )
            raise ConfigError("there is no database to connect to", hint=hint)
        self._dsn, self._lock = found, threading.RLock()
        self._keeper = Keeper(
            found, prepare=schema.check, give_up_after=_RETRY_FOR, backoff=Backoff(*_PAUSES)
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The next call opens a new one."""
        with self._lock:
            self._keeper.close()

    # -- runs --------------------------------------------------------------------------------------

    def start_flow(
        self,
        slug: str,
        input: Any,
        run_id: str | None = None,
        *,
        priority: int = 0,
        key: str | None = None,
        from_run: str | None = None,
        reuse: Sequence[str] = (),
    ) -> Run:
        """Start a run with ``input``, anything that a handler could return.

        Among the runs of a flow, those of the highest ``priority`` are worked on first. With a
        ``run_id`` of your own, or a ``key``, a name among the runs of the flow, starting twice starts once;
        the run is answered as it is. Raises FlowNotFound, InputError, also where the run of the key was
        given another input. What ``from_run``, an earlier run, has finished of the steps in ``reuse`` is
        taken instead of done again where the input is the same.
        """
        reentry.refuse("start_flow()", in_handlers=False)
        encoded, taken = encode_input(input), reuse_of(slug, from_run, reuse, key)
        wanted = _new_id(run_id, key)
        if key is not None:
            found = self._call(
                lambda conn: keyed_runs.start_value(conn, slug, encoded, key, priority=priority), long=True
            )
            return Run(self, found.run)
        row = self._call(
            lambda conn: start_once(conn, slug, encoded, wanted, priority=priority, reuse=taken), long=True
        )
        return Run(self, row)

    def start(
        self,
        flow: Flow | str,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        params: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        priority: int = 0,
        key: str | None = None,
        from_run: str | None = None,
        reuse: Sequence[str] = (),
    ) -> Run:
        """Start a run over ``items``, of which there may be any number: an iterable, or an async iterator.

        They are drawn and stored page by page, in constant memory, and nobody sees them before all are there.
        ``params`` is what other steps read as the run's input. Otherwise like :meth:`start_flow`; raises what
        drawing the items raises, too, and then nothing was started. Where there is a run with the ``key``,
        they are drawn to be compared.
        """
        reentry.refuse("start()", in_handlers=False)
        wanted, taken = _new_id(run_id, key), reuse_of(flow, from_run, reuse, key)
        encoded = encode_input(params or {}, nulls=isinstance(flow, Flow) and flow.nulls)
        with self._another() as keeper:
            found = feeding_items.start_with(keeper, flow, items, encoded, wanted, priority, key, taken)
            return Run(self, found.run)

    def get_run(self, run_id: str) -> Run | None:
        """The run, or None if there is none with this id."""
        wanted = _uuid(run_id)
        row = self._call(lambda conn: engine.get_run(conn, wanted)) if wanted is not None else None
        return Run(self, row) if row is not None else None

    def cancel(self, run_id: str, reason: str = "Run cancelled") -> Run:
        """End a run as failed; tasks that run are stopped. A finished run stays as it is. RunNotFound."""
        self._found(run_id)
        return Run(self, self._call(lambda conn: engine.cancel_run(conn, run_id, reason), long=True))

    def retry_failed(self, run_id: str) -> int:
        """Start a failed run again with what is not finished; how many tasks. Finished work is kept.

        Raises RunNotFound, and InputError for a run that has not failed.
        """
        status = self._found(run_id)
        if status != "failed":
            raise InputError(f"Run {run_id} is {status}, only a failed run can be retried")
        return self._call(lambda conn: engine.retry_failed_tasks(conn, run_id), long=True)

    def retry(
        self,
        run: Run | str,
        *,
        steps: str | Iterable[str] | None = None,
        indexes: Indexes | None = None,
        errors: str | Iterable[str] | None = None,
        dry_run: bool = False,
    ) -> Retry:
        """Try failed items of a run again, tolerated ones, too, whether it failed, is completed or goes on.

        Of these ``steps``, with these ``indexes``, with an error that contains one of these texts; all of
        them by default. Steps that were given such an item are computed again, as is what follows from them;
        a failed run goes on with what was not finished, too. Answers what was done, which is nothing if there
        is nothing to do; with ``dry_run`` what would be. Raises RunNotFound, FlowNotFound for an unknown
        step, and InputError if the run would fail again at once.
        """
        run_id = run if isinstance(run, str) else run.run_id
        choice = choice_of(steps, indexes, errors)
        self._found(run_id)
        for step in choice.steps or ():
            self._check_step(run_id, step)
        found = self._call(lambda conn: retry_items(conn, run_id, choice, dry_run=dry_run), long=True)
        return Retry(run_id, tuple(found))

    def results(self, run_id: str, step: str) -> Iterator[Any]:
        """Outputs of a step's completed tasks in index order, streamed; any size.

        Works while the step runs, too: then what is completed when it is passed is answered. Raises
        RunNotFound, and FlowNotFound for a step that the run does not have.
        """
        return (output for _, output in self.indexed_results(run_id, step))

    def indexed_results(self, run_id: str, step: str) -> Iterator[tuple[int, Any]]:
        """Like :meth:`results`, as (task index, output)."""
        self._check_step(run_id, step)
        return self._indexed_results(run_id, step)

    def failures(
        self, run_id: str, step: str | None = None, *, error: str | None = None
    ) -> list[FailureGroup]:
        """The failed items of a run, or a step, in groups of alike errors: those that failed a step first.

        Whatever their number, and also while the run goes on. ``error``: only those with this text in their
        error, or in the group's. Raises RunNotFound, and FlowNotFound for a step that the run does not have.
        """
        self._found(run_id)
        if step is not None:
            self._check_step(run_id, step)

        def read(conn: Connection) -> list[FailureGroup]:
            steps, whole = engine.run_progress(conn, run_id), grouping.WHOLE
            return grouping.read_failures(conn, run_id, steps, step=step, text=error, whole=whole).groups

        return self._call(read, long=True)

    # -- internals ---------------------------------------------------------------------------------

    def _check_step(self, run_id: str, step: str) -> None:
        wanted = _uuid(run_id)
        view = self._call(lambda conn: runs.run_view(conn, wanted)) if wanted is not None else None
        if view is None:
            raise RunNotFound(f"Run not found: {run_id}")
        check_step([row.step_slug for row in view[1]], step, view[0].flow_slug)

    def _indexed_results(self, run_id: str, step: str) -> Iterator[tuple[int, Any]]:
        with self._another() as keeper:
            for index, raw in documents.iter_results(keeper.connection(), run_id, step):
                yield index, None if raw is None else msgspec.json.decode(raw)

    def _as_completed(
        self, run: Run, step: str, ordered: bool, timeout: float | None
    ) -> Iterator[FinishedItem]:
        self._check_step(run.run_id, step)
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._follow(run, step, ordered, deadline)

    def _follow(self, run: Run, step: str, ordered: bool, deadline: float | None) -> Iterator[FinishedItem]:
        with self._another() as keeper:
            follower = Follower(keeper, run.run_id, step, inputs=True, ordered=ordered, deadline=deadline)
            for ended in follower:
                for each in ended:
                    yield from finished_items(each)
        if follower.run.status == "failed" and run.refresh().status == "failed":
            raise run.failure()

    def _map_output(self, run_id: str, step: str) -> list[Any]:
        """The outputs of a completed map, None for failed items, out of its tasks."""
        with self._another() as keeper:
            outputs = documents.iter_map_output(keeper.connection(), run_id, step)
            return [msgspec.json.decode(raw) for raw in outputs]

    def _found(self, run_id: str) -> str:
        wanted = _uuid(run_id)
        status = self._call(lambda conn: engine.run_status(conn, wanted)) if wanted is not None else None
        if status is None:
            raise RunNotFound(f"Run not found: {run_id}")
        return status

    def _another(self) -> Keeper:
        """One more connection, for what lasts."""
        return Keeper(self._dsn, give_up_after=_RETRY_FOR, backoff=Backoff(*_PAUSES))

    def _call(self, work: Callable[[Connection], T], *, long: bool = False) -> T:
        """Do ``work``, which may be done twice, on our connection or, if that is lost, on a new one.

        A server that does not answer is lost, unless the work may take ``long``: a run of a million items.
        """

        def attempt(conn: Connection) -> T:
            patience.limit(conn, None if long else patience.SILENCE)
            return work(conn)

        with self._lock:
            try:
                return self._keeper.call(attempt)
            except psycopg.Error as error:
                if not connection.is_transient(error):
                    raise
                hint = "Look at the server and the network. What was recorded is not lost."
                if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                    hint = "Name the primary instead of a standby, or a database that is not read-only."
                raise DatabaseUnavailable(
                    f"the database could not be used for {_RETRY_FOR:g} s: {first_line(error)}", hint=hint
                ) from error

    def _wait(self, look: Callable[[], bool], run_id: str, timeout: float) -> bool:
        """Call ``look`` whenever something may have happened, until it is true or time is up."""
        if look():
            return True
        run, deadline = run_id.encode(), time.monotonic() + timeout
        with self._another() as keeper:
            while True:
                try:
                    return _watch(keeper.connection(), look, run, deadline)
                except (psycopg.Error, DatabaseUnavailable) as error:
                    over = time.monotonic() > deadline
                    if not keeper.passes(error) or (over and isinstance(error, DatabaseUnavailable)):
                        raise
                    if over:
                        return False
                    keeper.lost(error)


def _watch(conn: Connection, look: Callable[[], bool], run: bytes, deadline: float) -> bool:
    """Call ``look`` until it is true, or false at ``deadline`` (time.monotonic()).

    An event is a hint to look. Hints that come again and again are heeded ever less often.
    """
    hints = Hints(conn, "pgflow_events", lambda text: b"" if run in text else None)
    pause, most = _HEED
    while not look():
        looked = time.monotonic()
        if looked >= deadline:
            return False
        hinted = hints.wait(min(_POLL, deadline - looked))
        pause = min(most, 1.5 * pause) if hinted else _HEED[0]
        if hinted and (early := min(looked + pause, deadline) - time.monotonic()) > 0:
            time.sleep(early)
    return True


def _new_id(given: str | None, key: str | None = None) -> str:
    """The id of a run to be started, one that nobody has yet unless it is ``given``. Raises InputError."""
    keyed_runs.check_name(key, given)
    wanted = _uuid(given) if given is not None else str(uuid.uuid4())
    if wanted is None:
        raise InputError(f"{given!r} cannot be the id of a run", hint="Run ids are uuids.")
    return wanted


def _uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(str(text)))
    except ValueError:
        return None
