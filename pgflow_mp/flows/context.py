"""What a handler learns about its task besides its input (contract: worker section 4).

A Context is made for every item, so making one costs a fraction of a microsecond and everything
that costs more happens on first use. No database driver is imported before connect() is called.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

import msgspec

from pgflow_mp import libpq
from pgflow_mp.errors import ConfigError, DatabaseUnavailable, PermanentError, RunNotFound
from pgflow_mp.flows.page_reader import PageReader
from pgflow_mp.flows.paged import Decode, lazily
from pgflow_mp.values import artifacts
from pgflow_mp.values.artifacts import ArtifactFile, Roots
from pgflow_mp.values.json_values import Json

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_CACHED_INPUTS: Final = 32
_decode: Final[Decode] = msgspec.json.Decoder().decode
JOBS: Final = "(queue)"
"""Stands for the flow where plain background jobs are executed, which belong to none."""
JobTimes = tuple[int, datetime, datetime]
"""read_ct, enqueued_at and vt of a job's message: what a job has in the place of its flow's input."""


class Shutdown(Protocol):
    """Anything that says whether the worker is shutting down, e.g. a multiprocessing.Event."""

    def is_set(self) -> bool: ...


class _NeverShutdown:
    def is_set(self) -> bool:
        return False


class StepTask(NamedTuple):
    """The claimed record of the contract. ``input`` and ``flow_input`` are decoded JSON."""

    flow_slug: str
    run_id: str
    step_slug: str
    task_index: int
    input: Json
    msg_id: int
    flow_input: Json


class RawMessage(NamedTuple):
    """The queue row behind the task."""

    msg_id: int
    read_ct: int
    enqueued_at: datetime
    vt: datetime
    message: Json


class Runtime:
    """What all contexts of one process share: settings, the shutdown signal, one database connection.

    ``dsn`` is where connect() goes (None: it raises ConfigError); ``worker_config`` is frozen deeply.
    ``outputs`` reads outputs of parents that are too large to be handed over. ``artifacts`` are the places
    for large results.
    """

    def __init__(
        self,
        *,
        dsn: str | None = None,
        worker_config: Mapping[str, object] | None = None,
        shutdown: Shutdown | None = None,
        artifacts: Roots | None = None,
    ) -> None:
        self.dsn = dsn
        self.worker_config: Mapping[str, object] = _freeze(dict(worker_config or {}))
        self.shutdown: Shutdown = shutdown or _NeverShutdown()
        self.outputs: PageReader = PageReader(dsn)
        self.artifacts: Roots = artifacts or Roots()
        self._connection: Connection[TupleRow] | None = None
        self._pid = os.getpid()
        self._flow_inputs: OrderedDict[tuple[str, object], tuple[object]] = OrderedDict()

    def connect(self) -> Connection[TupleRow]:
        """This process's connection, in autocommit mode; opened on first use and again once closed."""
        import psycopg

        if self.dsn is None:
            raise ConfigError(
                "This handler asked for a database connection, but its worker has none to give",
                hint="ctx.connect() works in tasks that a worker runs.",
            )
        connection = self._connection
        if connection is not None and self._pid != os.getpid():
            connection = None  # a fork by the handler: the socket belongs to the other process
        if connection is not None and not (connection.closed or connection.broken):
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.rollback()  # left open by an earlier task
            return connection
        try:
            connection = libpq.connect(
                self.dsn, autocommit=True, prepare_threshold=None, application_name="pgflow_mp handler"
            )
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(f"Cannot connect to the database: {error}") from error
        self._connection, self._pid = connection, os.getpid()
        return connection

    def flow_input(
        self, run_id: str, raw: bytes | None = None, decode: Callable[[bytes], object] = _decode
    ) -> object:
        """The input of a run, decoded by ``decode``; loaded from the database where ``raw`` is None.

        The latest 32 are remembered.
        """
        key = (run_id, decode)
        cached = self._flow_inputs.get(key) if run_id else None
        if cached is not None:
            self._flow_inputs.move_to_end(key)
            return cached[0]
        value = decode(self._load_flow_input(run_id) if raw is None else raw)
        if run_id:
            self._flow_inputs[key] = (value,)
            if len(self._flow_inputs) > _CACHED_INPUTS:
                self._flow_inputs.popitem(last=False)
        return value

    def _load_flow_input(self, run_id: str) -> bytes:
        import psycopg

        connection, query = self.connect(), "SELECT pgflow.run_input(%s::uuid)::text"
        try:
            row = connection.execute(query, (run_id,)).fetchone()
        except psycopg.errors.InsufficientPrivilege:  # a role that was granted functions only
            query = "SELECT (pgflow.get_run_with_states(%s::uuid) #> '{run,input}')::text"
            row = connection.execute(query, (run_id,)).fetchone()
        if row is None or row[0] is None:
            raise RunNotFound(f"Run not found: {run_id}")
        raw: bytes = row[0].encode()
        return raw

    def close(self) -> None:
        """Close the connections, if any was opened by this process."""
        self.outputs.close()
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()
        self._connection = None


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({key: _freeze(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_freeze(item) for item in value)
    return value


_detached: Final = Runtime()


class Context(msgspec.Struct, eq=False):
    """Given to handlers that ask for it: a parameter named ``ctx`` or ``context``, or annotated Context.

    ``task_index`` is the element's position in a map (0 in other steps); ``attempt`` counts from 1.
    ``paged`` are parents whose outputs are too large to be in ``raw_input``, each with its items (None for a
    step of one task). Every field has a default, so that a handler can be tested with a plain
    ``Context(task_index=3)``.
    """

    run_id: str = ""
    flow_slug: str = ""
    step_slug: str = ""
    task_index: int = 0
    attempt: int = 1
    msg_id: int = 0
    raw_input: bytes = b"null"
    raw_flow_input: bytes | None = None
    runtime: Runtime = _detached
    paged: Mapping[str, int | None] | None = None

    @property
    def flow_input(self) -> Json:
        """The run's input. Raises RunNotFound if the run is gone, PermanentError in a job, which has none.

        It is decoded once per run and process: tasks of one run share it, so do not change it.
        """
        if self.flow_slug == JOBS:
            raise PermanentError("A background job has no flow input: its payload is all that it is given")
        return cast("Json", self.runtime.flow_input(self.run_id, self.raw_flow_input))

    @property
    def task(self) -> StepTask:
        """The claimed record. Outputs of parents that are too large to be part of it are read when used."""
        input = _decode(self.raw_input)
        if self.paged:
            input.update(lazily(self))
        return StepTask(
            self.flow_slug,
            self.run_id,
            self.step_slug,
            self.task_index,
            input,
            self.msg_id,
            self.flow_input,
        )

    @property
    def raw_message(self) -> RawMessage:
        """The queue row of this task, read from the database; of a background job as its worker read it.

        Raises PermanentError in an item of a map in ranges, which has none: its second attempt would have
        one, as a task, so that each item would fail once.
        """
        from psycopg import sql

        if self.flow_slug == JOBS and self.raw_flow_input is not None:
            read_ct, enqueued_at, vt = msgspec.json.decode(self.raw_flow_input, type=JobTimes)
            return RawMessage(self.msg_id, read_ct, enqueued_at, vt, _decode(self.raw_input))
        if not self.msg_id:
            raise PermanentError(
                f"{self.step_slug}[{self.task_index}] has no message of its own in the queue; a map whose"
                ' items are to have one says so: storage="tasks"'
            )
        connection = self.connect()
        queue = connection.execute(
            "SELECT queue_name FROM pgflow.step_tasks WHERE run_id = %s::uuid AND step_slug = %s"
            " AND task_index = %s::int",
            (self.run_id, self.step_slug, self.task_index),
        ).fetchone()
        table = sql.Identifier("pgmq", f"q_{queue[0] if queue else self.flow_slug.lower()}")
        query = sql.SQL("SELECT msg_id, read_ct, enqueued_at, vt, message FROM {} WHERE msg_id = %s")
        row = connection.execute(query.format(table), (self.msg_id,), binary=True).fetchone()
        if row is None:
            raise RunNotFound(f'Message {self.msg_id} of flow "{self.flow_slug}" is no longer queued')
        return RawMessage(*row)

    @property
    def env(self) -> MutableMapping[str, str]:
        """The environment variables of this process."""
        return os.environ

    @property
    def shutdown(self) -> Shutdown:
        """``ctx.shutdown.is_set()`` turns true when the worker shuts down: a long handler may stop early."""
        return self.runtime.shutdown

    @property
    def worker_config(self) -> Mapping[str, object]:
        """The worker's resolved options; read-only, also inside."""
        return self.runtime.worker_config

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines carry run, step, index and attempt."""
        logger = logging.getLogger(f"pgflow_mp.task.{self.flow_slug}.{self.step_slug}")
        extra: dict[str, object] = {
            "run_id": self.run_id,
            "flow_slug": self.flow_slug,
            "step_slug": self.step_slug,
            "task_index": self.task_index,
            "attempt": self.attempt,
        }
        extra["fields"] = {
            "run": self.run_id,
            "flow": self.flow_slug,
            "step": self.step_slug,
            "index": self.task_index,
            "attempt": self.attempt,
        }
        return logging.LoggerAdapter(logger, extra)

    def artifact(
        self, name: str, *, media_type: str | None = None
    ) -> contextlib.AbstractContextManager[ArtifactFile]:
        """A binary file to write, for a ``with`` block; once that has ended, return ``file.artifact``.

        Raises ArtifactError where it cannot be stored, PermanentError where there is no place for any.
        """
        place = self.runtime.artifacts.place(self.flow_slug, self.run_id)
        return artifacts.writing(place, name, media_type)

    def enter(self) -> Context:
        """Let this thread's artifacts be of this run; answers itself. For whoever executes items."""
        artifacts.enter(self.runtime.artifacts, self.flow_slug, self.run_id)
        return self

    def connect(self) -> Connection[TupleRow]:
        """A psycopg connection in autocommit mode, shared by all tasks of this process.

        Raises ConfigError where no worker runs the handler, DatabaseUnavailable if no server answers.
        """
        return self.runtime.connect()
