"""Starting runs and following them from anywhere (contract: worker section 7).

    with Client(dsn) as client:
        run = client.start_flow("word_count", ["one line", "another line"])
        print(run.wait().output)

Nothing is executed here: a worker that serves the flow does that.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec
import psycopg

from pgflow_mp.client_runs import Run, check_step
from pgflow_mp.db import connection, engine, patience, runs, schema, wire
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.hints import Hints
from pgflow_mp.db.starting import start_once
from pgflow_mp.errors import ConfigError, DatabaseUnavailable, InputError, RunNotFound
from pgflow_mp.loading import reentry
from pgflow_mp.values.inputs import encode_input

_POLL: Final = 1.0  # seconds between looks when no event arrives
_HEED: Final = (0.01, 0.2)  # seconds, least and most, between looks when events arrive
_RETRY_FOR: Final = 30.0  # seconds to wait for a database that is away

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
                "Give a connection string, or set PGFLOW_DATABASE_URL. The embedded server has one while it "
            )
            raise ConfigError("there is no database to connect to", hint=hint + "runs: EmbeddedServer().dsn.")
        self._dsn, self._lock = found, threading.RLock()
        self._conn: Connection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The next call opens a new one."""
        with self._lock:
            conn, self._conn = self._conn, None
            if conn is not None:
                with contextlib.suppress(psycopg.Error):
                    conn.close()

    # -- runs --------------------------------------------------------------------------------------

    def start_flow(self, slug: str, input: Any, run_id: str | None = None, *, priority: int = 0) -> Run:
        """Start a run with ``input``, anything that a handler could return.

        Among the runs of a flow, those of the highest ``priority`` are worked on first. With a
        ``run_id`` of your own, starting twice starts once. Raises FlowNotFound, InputError.
        """
        reentry.refuse("start_flow()", in_handlers=False)
        encoded = encode_input(input)
        wanted = _uuid(run_id) if run_id is not None else str(uuid.uuid4())
        if wanted is None:
            raise InputError(f"{run_id!r} cannot be the id of a run", hint="Run ids are uuids.")

        row = self._call(lambda conn: start_once(conn, slug, encoded, wanted, priority=priority), long=True)
        return Run(self, row)

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

    # -- internals ---------------------------------------------------------------------------------

    def _check_step(self, run_id: str, step: str) -> None:
        wanted = _uuid(run_id)
        view = self._call(lambda conn: runs.run_view(conn, wanted)) if wanted is not None else None
        if view is None:
            raise RunNotFound(f"Run not found: {run_id}")
        check_step([row.step_slug for row in view[1]], step, view[0].flow_slug)

    def _indexed_results(self, run_id: str, step: str) -> Iterator[tuple[int, Any]]:
        with self._open() as conn:
            for index, raw in runs.iter_results(conn, run_id, step):
                yield index, None if raw is None else msgspec.json.decode(raw)

    def _map_output(self, run_id: str, step: str) -> list[Any]:
        """The outputs of a completed map, None for failed items, out of its tasks."""
        with self._open() as conn:
            return [msgspec.json.decode(raw) for raw in runs.iter_map_output(conn, run_id, step)]

    def _found(self, run_id: str) -> str:
        wanted = _uuid(run_id)
        status = self._call(lambda conn: engine.run_status(conn, wanted)) if wanted is not None else None
        if status is None:
            raise RunNotFound(f"Run not found: {run_id}")
        return status

    @contextlib.contextmanager
    def _open(self) -> Iterator[Connection]:
        conn = connection.retrying(self._dsn, give_up_after=_RETRY_FOR, silence=patience.SILENCE)
        try:
            wire.adapt(conn)
            yield conn
        finally:
            conn.close()

    def _call(self, work: Callable[[Connection], T], *, long: bool = False) -> T:
        """Do ``work``, which may be done twice, on our connection or, if that is lost, on a new one.

        A server that does not answer is lost, unless the work may take ``long``: a run of a million items.
        """
        silence = None if long else patience.SILENCE
        deadline = time.monotonic() + _RETRY_FOR
        with self._lock:
            while True:
                try:
                    if self._conn is None:
                        self._conn = self._connected(max(0.0, deadline - time.monotonic()))
                    patience.limit(self._conn, silence)
                    return work(self._conn)
                except psycopg.Error as error:
                    if not connection.is_transient(error):
                        raise
                    if connection.wants_new_connection(error):
                        self.close()
                    if time.monotonic() > deadline:
                        text = str(error).strip().partition("\n")[0]
                        raise DatabaseUnavailable(
                            f"the database could not be used for {_RETRY_FOR:g} s: {text}",
                            hint="Look at the server and the network. What was recorded is not lost.",
                        ) from error
                    time.sleep(0.05)

    def _connected(self, give_up_after: float) -> Connection:
        conn = connection.retrying(self._dsn, give_up_after=give_up_after, silence=patience.SILENCE)
        try:
            wire.adapt(conn)
            schema.check(conn)
        except BaseException:
            conn.close()
            raise
        return conn

    def _wait(self, look: Callable[[], bool], run_id: str, timeout: float) -> bool:
        """Call ``look`` whenever something may have happened, until it is true or time is up.

        An event is a hint to look. Hints that come again and again are heeded ever less often.
        """
        run = run_id.encode()
        if look():
            return True
        deadline = time.monotonic() + timeout
        while True:
            try:
                with self._open() as conn:
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
            except (psycopg.Error, DatabaseUnavailable) as error:
                over = time.monotonic() > deadline
                if not connection.is_transient(error) or (over and isinstance(error, DatabaseUnavailable)):
                    raise
                if over:
                    return False
                time.sleep(0.05)


def _uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(str(text)))
    except ValueError:
        return None
