"""imap: a run whose items come out as they end, with its worker in a thread beside whoever reads them."""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Executor as Pool
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from uuid import uuid4

import msgspec
import psycopg

from pgflow_mp import runner
from pgflow_mp.client import feeding_items
from pgflow_mp.client.endings_of_runs import unfinished
from pgflow_mp.client.finished_items import finished_items
from pgflow_mp.client.following import Follower
from pgflow_mp.client.placing import place_flow
from pgflow_mp.client.state import open_state
from pgflow_mp.db import engine, pruning, schema
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import Keeper, ask, first_line
from pgflow_mp.db.public_errors import public_errors
from pgflow_mp.db.run_tags import check_tags
from pgflow_mp.errors import DatabaseError, FlowNotFound, InputError, PgflowError
from pgflow_mp.flows import items as uses
from pgflow_mp.flows.finished_item import FinishedItem
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.handles import step_in
from pgflow_mp.flows.results import inputs_reader, leaf_reader, output_reader
from pgflow_mp.loading import reentry
from pgflow_mp.observe.observer import Observer
from pgflow_mp.run_request import RunRequest, RunSummary, StateDatabase
from pgflow_mp.values.inputs import encode_input
from pgflow_mp.worker.artifact_removal import remove_leftovers
from pgflow_mp.worker.worker import Worker

if TYPE_CHECKING:
    from pgflow_mp.flows.typed import StepLike

_LEFT: Final = "The loop over its items was left"
_PATIENCE: Final = 2.0
"""Seconds that items have which nobody wants any more, before their processes are killed."""


def imap(
    flow: Flow,
    items: Iterable[object] | AsyncIterable[object],
    *,
    step: StepLike | None = None,
    ordered: bool = True,
    keep: bool = True,
    workers: int | None = None,
    batch_size: int | None = None,
    max_poll_seconds: float = 2.0,
    dsn: str | None = None,
    data_dir: Path | str | None = None,
    timeout: float | None = None,
    params: Mapping[str, object] | None = None,
    run_id: str | None = None,
    priority: int = 0,
    tags: Sequence[str] = (),
    observer: Observer | None = None,
    executor: Pool | Callable[[], Pool] | str | None = None,
    ship: Literal["cloudpickle"] | None = None,
    **settings: Any,
) -> Generator[FinishedItem[Any, Any], None, None]:
    """See :meth:`pgflow_mp.Flow.imap`."""
    reentry.refuse("imap()")
    slug = _step_of(flow, step)
    of_function = step is not None and not isinstance(step, str)
    reading = _reading(flow, slug, of_function=of_function)
    if params is None and uses.reads_whole_input(flow):
        raise InputError(
            f'Other steps of flow "{flow.slug}" read its input, which items given one by one are not',
            hint="Give them theirs with params={...}.",
        )
    settings |= {"workers": workers, "batch_size": batch_size, "max_poll_seconds": max_poll_seconds}
    wanted = str(uuid4()) if run_id is None else runner.checked_id(run_id)
    target, more = place_flow(flow, ship)
    request = RunRequest(
        target,
        flow.slug,
        input=encode_input(params or {}),
        loaded=True,
        run_id=wanted,
        timeout=timeout,
        priority=priority,
        tags=check_tags(tags),
        executor=executor,
        settings=settings | more,
    )
    request.worker_settings(dsn or "")  # refuses what makes no sense
    return _imap(flow, items, slug, reading, request, dsn, data_dir, observer, ordered=ordered, keep=keep)


class _Reading(NamedTuple):
    """What reads JSON arrays of outputs and of inputs."""

    outputs: Callable[[bytes], list[Any]]
    inputs: Callable[[bytes], list[Any]]


def _reading(flow: Flow, slug: str, *, of_function: bool) -> _Reading:
    """Outputs of a leaf as annotated, and of a step that is given as its function, whose inputs are, too."""
    if of_function:
        return _Reading(output_reader(flow.steps[slug]).tasks, inputs_reader(flow, flow.steps[slug]))
    return _Reading(leaf_reader(flow, slug).tasks, msgspec.json.decode)


def _step_of(flow: Flow, step: StepLike | None) -> str:
    """The map whose items are wanted. Raises FlowNotFound and InputError."""
    if not uses.root_maps(flow):
        raise InputError(
            f'Flow "{flow.slug}" has no map over its input, whose items could be given one by one',
            hint="Call run(flow, input).",
        )
    if step is not None:
        if not isinstance(step, str):
            return step_in(flow, step).slug
        if step not in flow.steps:
            raise FlowNotFound(
                f'Step "{step}" does not exist in flow "{flow.slug}"',
                hint=f"Its steps are {', '.join(flow.steps)}.",
            )
        return step
    parents = {slug for each in flow.steps.values() for slug in each.dependencies}
    leaves = [each for slug, each in flow.steps.items() if slug not in parents]
    maps = [each.slug for each in flow.steps.values() if each.step_type == "map"]
    if len(leaves) == 1 and leaves[0].step_type == "map":
        return leaves[0].slug
    if len(maps) == 1:
        return maps[0]
    raise InputError(
        f'Whose items? Flow "{flow.slug}" has the maps {", ".join(maps)}',
        hint=f"Name one: step={maps[-1]!r}.",
    )


def _imap(
    flow: Flow,
    items: Iterable[object] | AsyncIterable[object],
    slug: str,
    reading: _Reading,
    request: RunRequest,
    dsn: str | None,
    data_dir: Path | str | None,
    observer: Observer | None,
    *,
    ordered: bool,
    keep: bool,
) -> Generator[FinishedItem[Any, Any], None, None]:
    run_id = str(request.run_id)

    with public_errors(), open_state(dsn, data_dir) as database:
        mode = str(request.settings.get("compile", "check"))
        feeding_items.load_for(database.dsn, flow, items, run_id, mode)
        background = _Background(flow, database, request, observer, keep=keep)
        try:
            background.start()
            with Keeper(database.dsn, prepare=schema.check) as keeper:
                follower = Follower(
                    keeper, run_id, slug, inputs=True, ordered=ordered, check=background.check
                )
                for ended in follower:
                    for each in ended:
                        yield from finished_items(each, *reading)
            background.finish()
        except GeneratorExit:
            background.cancel()
            raise
        except KeyboardInterrupt:
            background.stop()
            background.check()  # says how to go on with it
            raise
        except PgflowError as error:
            if not keep:
                error.hint = "Nothing is kept of the run (keep=False)."
            raise
        finally:
            background.stop()
            background.clean_up()


class _Background:
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


_under_way: Final[set[_Background]] = set()
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
