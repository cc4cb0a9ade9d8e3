"""What the methods of a client are made of: its database, its connection, calls that are tried again."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

import msgspec
import psycopg

from pgflow_mp.client.run_handles import Run
from pgflow_mp.client.state import open_state
from pgflow_mp.client.step_handles import check_step
from pgflow_mp.client.typed_outputs import one_output
from pgflow_mp.client.waiting import Rounds, Waiter, rounds_here
from pgflow_mp.db import connection, engine, patience, schema
from pgflow_mp.db.connection import Backoff
from pgflow_mp.db.engine import Connection, RunRow
from pgflow_mp.db.keeper import Keeper, first_line
from pgflow_mp.db.public_errors import public_errors
from pgflow_mp.db.reads import documents, runs
from pgflow_mp.errors import WHY_NO_RUN, ConfigError, DatabaseUnavailable, InputError, RunNotFound
from pgflow_mp.flows import handles
from pgflow_mp.flows.results import OutputReader, inputs_reader, output_reader
from pgflow_mp.loading import reentry
from pgflow_mp.run_request import StateDatabase
from pgflow_mp.values.json_values import Json

if TYPE_CHECKING:
    from pgflow_mp.client.client import Client
    from pgflow_mp.flows.typed import StepLike

RETRY_FOR: Final = 30.0
"""Seconds to wait for a database that is away."""
_LIST: Final = "Give the whole id: runs() lists them, and run() finds one by how it begins."
_PAUSES: Final = (0.05, 1.0)  # seconds, the first and the longest between tries: somebody waits

T = TypeVar("T")
_decode: Final = msgspec.json.Decoder().decode


class StepOfRun(NamedTuple):
    """A step by its slug, or, of a function, with what reads its outputs and inputs as that is annotated."""

    run_id: str
    slug: str
    output: OutputReader = OutputReader()
    read_inputs: Callable[[bytes], list[Any]] = _decode


class Calls:
    """A database, and one connection to it that is opened when it is needed; guarded by a lock.

    Threads: any may call; calls wait for each other, what lasts (waiting, streams) has connections of its
    own.
    """

    def __init__(self, dsn: str | None, data_dir: Path | str | None) -> None:
        found = connection.discover_dsn(dsn) if data_dir is None or dsn is not None else None
        if found is None and data_dir is None:
            found = reentry.database()
        if found is None and reentry.is_inside():
            raise ConfigError(
                "There is no database to connect to", hint="Give a connection string: Client(dsn)."
            )
        self._named = found
        self._data_dir = data_dir
        self._lock = threading.RLock()
        self._embedded: tuple[contextlib.ExitStack, StateDatabase] | None = None
        self._keeper: Keeper | None = None

    def close(self) -> None:
        """Close the connection, and leave the embedded server if we use it.

        The next call opens them again.
        """
        with self._lock:
            keeper, self._keeper = self._keeper, None
            embedded, self._embedded = self._embedded, None
            if keeper is not None:
                keeper.close()
            if embedded is not None:
                embedded[0].close()

    def _dsn(self) -> str:
        """The connection string; the embedded server is started, or attached to, where no other is named."""
        if self._named is not None:
            return self._named
        with self._lock:
            if self._embedded is None:
                with contextlib.ExitStack() as stack:
                    database = stack.enter_context(open_state(None, self._data_dir))
                    self._embedded = stack.pop_all(), database
            return self._embedded[1].dsn

    def _artifacts(self) -> str | None:
        """The folder for artifacts that goes with the embedded server, if that is used."""
        with self._lock:
            return None if self._embedded is None else self._embedded[1].artifacts

    def _new_keeper(self) -> Keeper:
        """One more connection, for what lasts."""
        return _keeper(self._dsn())

    @contextlib.contextmanager
    def _another(self) -> Iterator[Keeper]:
        """The same for a block, out of which come errors of ours."""
        with public_errors(), self._new_keeper() as keeper:
            yield keeper

    def _call(self, work: Callable[[Connection], T], *, long: bool = False) -> T:
        """Do ``work``, which may be done twice, on our connection or, if that is lost, on a new one.

        A server that does not answer is lost, unless the work may take ``long``: a run of a million items.
        """

        def attempt(conn: Connection) -> T:
            patience.limit(conn, None if long else patience.SILENCE)
            return work(conn)

        with self._lock, public_errors():
            if self._keeper is None:
                self._keeper = _keeper(self._dsn())
            try:
                return self._keeper.call(attempt)
            except psycopg.Error as error:
                if not connection.is_transient(error):
                    raise
                hint = "Look at the server and the network. What was recorded is not lost."
                if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                    hint = "Name the primary instead of a standby, or a database that is not read-only."
                raise DatabaseUnavailable(
                    f"The database could not be used for {RETRY_FOR:g} s: {first_line(error)}", hint=hint
                ) from error

    def _here(self, make: Callable[[Keeper], Rounds[T]], *run_ids: str) -> Generator[T, None, None]:
        """What the rounds find that ``make`` makes on a connection of their own; waits in this thread."""
        with self._another() as keeper:
            yield from rounds_here(make(keeper), Waiter(keeper, run_ids))

    def _await(self, rounds: Rounds[None], run_id: str) -> None:
        """Wait, in this thread, until the rounds end; raises what they raise."""
        for _ in self._here(lambda _keeper: rounds, run_id):
            pass

    def _handle(self, row: RunRow) -> Run:
        return Run(cast("Client", self), row)

    def _run(self, run: Run | str) -> Run:
        """The run, read where only its id is given. Raises RunNotFound."""
        if isinstance(run, Run):
            return run
        wanted = as_uuid(run)
        row = self._call(lambda conn: engine.get_run(conn, wanted)) if wanted is not None else None
        if row is None:
            raise RunNotFound(f"There is no run {run} in this database", hint=_LIST)
        return self._handle(row)

    def _id(self, run: Run | str) -> str:
        """The id of a run that there is. Raises RunNotFound."""
        run_id = run.run_id if isinstance(run, Run) else run
        self._found(run_id)
        return str(as_uuid(run_id))

    def _found(self, run_id: str) -> str:
        """The status of a run. Raises RunNotFound."""
        wanted = as_uuid(run_id)
        status = self._call(lambda conn: engine.run_status(conn, wanted)) if wanted is not None else None
        if status is None:
            raise RunNotFound(f"There is no run {run_id} in this database", hint=_LIST)
        return status

    def _check_step(self, run_id: str, step: str) -> None:
        """Raise FlowNotFound for a step that the run does not have."""
        view = self._call(lambda conn: runs.run_view(conn, run_id))
        if view is None:
            raise RunNotFound(f"There is no run {run_id} in this database", hint=WHY_NO_RUN)
        check_step([row.step_slug for row in view[1]], step, view[0].flow_slug)

    def _step_of(self, run: Run | str, step: StepLike) -> StepOfRun:
        """A step of a run by its slug, unchecked, or by its function. Raises RunNotFound and FlowNotFound."""
        if isinstance(step, str):
            return StepOfRun(run.run_id if isinstance(run, Run) else run, step)
        known = self._run(run)
        flow, found = handles.step_of(known.flow_slug, step)
        inputs = inputs_reader(flow, found) if found.step_type == "map" else _decode
        return StepOfRun(known.run_id, found.slug, output_reader(found), inputs)

    def _slugs_of(self, run: Run | str, steps: StepLike | Iterable[StepLike]) -> list[str]:
        """The slugs of steps that are given by them, or by functions. Raises as :meth:`_step_of`."""
        each = steps if isinstance(steps, Iterable) and not isinstance(steps, str) else [steps]
        return [self._step_of(run, step).slug for step in each]

    def _output_of(self, run: Run, step: StepLike, timeout: float | None) -> Any:
        """The output of a step, once its run has completed; raises what Run.result does."""
        wanted = self._step_of(run, step)
        self._check_step(wanted.run_id, wanted.slug)
        run.wait(timeout)
        return self._read_output(wanted)

    def _read_output(self, step: StepOfRun) -> Any:
        return self._call(lambda conn: one_output(conn, step.run_id, step.slug, step.output), long=True)

    def _map_output(self, run_id: str, step: str) -> list[Json]:
        """The outputs of a completed map, None for failed items, out of its tasks."""
        with self._another() as keeper:
            outputs = documents.iter_map_output(keeper.connection(), run_id, step)
            return [msgspec.json.decode(raw) for raw in outputs]


def new_id(given: str | None) -> str:
    """The id of a run to be started, one that nobody has yet unless it is ``given``. Raises InputError."""
    wanted = as_uuid(given) if given is not None else str(uuid.uuid4())
    if wanted is None:
        raise InputError(f"{given!r} is not the id of a run", hint="Run ids are uuids.")
    return wanted


def as_uuid(text: str) -> str | None:
    """The id as PostgreSQL writes it; None for what is none."""
    try:
        return str(uuid.UUID(str(text)))
    except ValueError:
        return None


def _keeper(dsn: str) -> Keeper:
    return Keeper(dsn, prepare=schema.check, give_up_after=RETRY_FOR, backoff=Backoff(*_PAUSES))
