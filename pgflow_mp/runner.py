"""One call from a flow and an input to its result: start a run, execute it here, to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor as Pool
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload
from uuid import UUID, uuid4

import psycopg

from pgflow_mp.client import adopting, feeding_items, keyed_runs
from pgflow_mp.client.endings_of_runs import summary_of, unfinished
from pgflow_mp.client.placing import place_flow
from pgflow_mp.client.reuse import reuse_of
from pgflow_mp.client.showing import showing
from pgflow_mp.client.state import open_state
from pgflow_mp.client.typed_outputs import one_output, whole_output
from pgflow_mp.db import engine, loads, schema
from pgflow_mp.db.keeper import Keeper, ask
from pgflow_mp.db.public_errors import public_errors
from pgflow_mp.db.run_tags import check_tags
from pgflow_mp.db.starting import start_once
from pgflow_mp.errors import WHY_NO_RUN, DatabaseError, InputError, RunNotFound
from pgflow_mp.executors.choosing import factory
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.handles import step_in
from pgflow_mp.flows.results import output_reader
from pgflow_mp.flows.run_options import RunOptions
from pgflow_mp.flows.steps import StepDefinition
from pgflow_mp.loading import reentry
from pgflow_mp.observe.observer import Observer
from pgflow_mp.observe.text import plural
from pgflow_mp.run_request import RunRequest, RunSummary, StateDatabase
from pgflow_mp.values.inputs import encode_input
from pgflow_mp.worker.stats import Ending, Stats, WorkerReport
from pgflow_mp.worker.worker import Worker

if TYPE_CHECKING:
    from pgflow_mp.client.arguments import ResumeArguments, RunArguments
    from pgflow_mp.flows.typed import Input, Out, PlainFunction, StepFunction, StepLike

_NOTHING_DONE = WorkerReport(Ending.RUN_ENDED, Stats(), 0.0, 0, None, 0, 0)


@public_errors()
def execute(
    database: StateDatabase,
    request: RunRequest,
    *,
    observer: Observer | None = None,
    begun: Callable[[engine.Connection], None] | None = None,
    serving: Callable[[Worker], None] | None = None,
) -> RunSummary:
    """Start the run, or go on with it; serve it to its end. The order of all that is decided here.

    ``begun`` is called once there is a run to work on, and perhaps again where the connection is lost; not
    for one that has completed, which is only read: no worker is started for it. ``serving`` is given each
    worker before it runs. A run that is interrupted (SIGINT, SIGTERM, an operator) or takes longer than its
    timeout is left in order: ``interrupted`` or ``timed_out`` is set then. Raises RunNotFound, InputError,
    what Worker.run raises, and KeyboardInterrupt where we were interrupted before there was a run.
    """
    reentry.refuse("execute()")
    settings, flow_slug = request.worker_settings(database.dsn), request.flow
    if settings.artifacts_beside is None:
        settings = dataclasses.replace(settings, artifacts_beside=database.artifacts)
    wanted = str(uuid4()) if request.run_id is None else checked_id(request.run_id)
    known = _known_status(database.dsn, wanted, flow_slug) if request.resume else None
    if known == "completed":
        return summary_of(database, wanted, flow_slug, _NOTHING_DONE)
    started = request.resume

    def begin(conn: engine.Connection) -> str:
        nonlocal started
        if not request.resume:
            how: dict[str, Any] = {name: getattr(request, name) for name in ("priority", "tags", "reuse")}
            if request.loaded:
                loads.start_loaded_once(conn, wanted, request.input, **how)
            else:
                start_once(conn, flow_slug, b"{}" if request.input is None else request.input, wanted, **how)
            started = True
        elif request.retry and known == "failed" == engine.run_status(conn, wanted):
            queued = engine.retry_failed_tasks(conn, wanted)
            if observer is not None:
                observer.on_message("info", f"trying {plural(queued, 'item')} of run {wanted} again")
        if begun is not None:
            begun(conn)
        return wanted

    deadline = None if request.timeout is None else time.monotonic() + request.timeout
    until = None if deadline is None else lambda: time.monotonic() > deadline
    make = factory(request.executor, settings.workers)
    while True:
        worker = Worker(settings, observer=observer, executor=make)
        if serving is not None:
            serving(worker)
        try:
            report = worker.run(until, begin=begin)
        finally:
            if request.loaded and not started:
                _drop_load(database.dsn, wanted)
        if not started:
            raise KeyboardInterrupt("interrupted before the run was started")
        summary = summary_of(database, wanted, flow_slug, report)
        if summary.status != "started" or report.ending is not Ending.RUN_ENDED:
            return summary  # else it had failed, and was retried before we looked


def _drop_load(dsn: str, run_id: str) -> None:
    """Of items that are not to run nothing is to stay, if the database can be reached."""
    with contextlib.suppress(DatabaseError, psycopg.Error), Keeper(dsn) as keeper:
        loads.drop(keeper.begin(), run_id)


def checked_id(run_id: str) -> str:
    """The id of a run as PostgreSQL writes it. Raises RunNotFound for what can be none."""
    try:
        return str(UUID(run_id))
    except ValueError:
        raise RunNotFound(f"{run_id!r} is not the id of a run", hint="Run ids are uuids.") from None


def _known_status(dsn: str, run_id: str, flow_slug: str) -> str:
    run = ask(dsn, lambda conn: engine.get_run(conn, run_id), prepare=schema.check)
    if run is None:
        raise RunNotFound(f"There is no run {run_id} in this database", hint=WHY_NO_RUN)
    if run.flow_slug != flow_slug:
        raise InputError(
            f'Run {run_id} is one of flow "{run.flow_slug}", not of "{flow_slug}"',
            hint="Give the flow that it was started with.",
        )
    return run.status


@overload
def run(
    flow: Flow[Input],
    input: Input | Iterator[object] | AsyncIterable[object],
    **settings: Unpack[RunArguments],
) -> dict[str, object] | None: ...
@overload
def run(
    flow: Flow[Input],
    input: Input | Iterator[object] | AsyncIterable[object],
    *,
    output: StepFunction[..., object, Out],
    **settings: Unpack[RunArguments],
) -> Out: ...
@overload
def run(
    flow: Flow[Input],
    input: Input | Iterator[object] | AsyncIterable[object],
    *,
    output: str | PlainFunction,
    **settings: Unpack[RunArguments],
) -> object: ...
def run(
    flow: Flow[Any],
    input: object,
    *,
    output: StepLike | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    max_poll_seconds: float = 2.0,
    dsn: str | None = None,
    data_dir: Path | str | None = None,
    timeout: float | None = None,
    params: Mapping[str, object] | None = None,
    run_id: str | None = None,
    key: str | None = None,
    priority: int = 0,
    tags: Sequence[str] = (),
    from_run: str | None = None,
    reuse: Sequence[StepLike] = (),
    observer: Observer | None = None,
    executor: Pool | Callable[[], Pool] | str | None = None,
    ship: Literal["cloudpickle"] | None = None,
    progress: bool = False,
    **settings: Unpack[RunOptions],
) -> Any:
    """Execute ``flow`` on ``input`` with all cores and return the run's output.

    The output is an object of the leaf steps' outputs by slug, None where all of them were skipped; each is
    converted to its handler's return annotation where there is one (``list[...]`` of it for a map).
    ``output``, a step, has its output alone be answered, whichever step it is, and RunFailed raised where it
    was skipped: of a decorated function type checkers know what that is.

    ``input`` is anything that a handler could return. An iterator, generator or async iterator is loaded item
    by item in constant memory where the flow's maps are all that reads it; with ``params``, which other steps
    then read as the run's input, any iterable is.

    State is kept in ``dsn``, or the environment's database, or the embedded server. Where it is shared, runs
    of the highest ``priority`` are worked on first; by its ``tags`` a run is found again. That of a ``key``,
    a name among the runs of the flow, is started once: with the same input it is gone on with, or read. What
    ``from_run``, the id of an earlier run, has finished of the steps in ``reuse`` is taken instead of done
    again, item by item where the input is the same.

    ``executor`` runs the items in the place of processes of ours: a concurrent.futures.Executor, a function
    that makes one, or a word (docs/executors.md). ``ship="cloudpickle"`` sends the flow to the processes,
    which otherwise import it: for one that is defined in a notebook or at a prompt. With ``progress`` it is
    seen how it goes, on standard error. ``settings`` are further fields of WorkerSettings,
    such as ``preload`` and ``load_timeout``.

    Raises InputError, RunFailed with step, index and error of the first failure, WaitTimeout after
    ``timeout`` seconds, and KeyboardInterrupt when interrupted; the run can then be resumed.
    """
    reentry.refuse("run()")
    wanted_step = None if output is None else step_in(flow, output)
    given = {"workers": workers, "batch_size": batch_size, "max_poll_seconds": max_poll_seconds}
    keyed_runs.check_name(key, run_id)
    taken = reuse_of(flow, from_run, reuse, key)
    drawn = feeding_items.is_drawn(flow, input, params)
    encoded: bytes | None = encode_input((params or {}) if drawn else input, nulls=flow.nulls)
    pages = None
    if not drawn and key is None and encoded is not None:
        pages = feeding_items.input_pages(flow, input, encoded)
    if pages is not None:
        drawn, encoded = True, None
    wanted = str(uuid4()) if key is None and run_id is None else run_id
    target, more = place_flow(flow, ship)
    request = RunRequest(
        target,
        flow.slug,
        input=encoded,
        loaded=drawn,
        run_id=wanted,
        key=key,
        timeout=timeout,
        priority=priority,
        tags=check_tags(tags),
        reuse=taken,
        executor=executor,
        settings={**settings, **given, **more},
    )
    with showing(observer, flow.slug, wanted, progress=progress) as watcher:
        return _run(flow, request, dsn, data_dir, watcher, wanted_step, input if drawn else None, pages)


@overload
def resume(
    flow: Flow[Input], run_id: str, **settings: Unpack[ResumeArguments]
) -> dict[str, object] | None: ...
@overload
def resume(
    flow: Flow[Input],
    run_id: str,
    *,
    output: StepFunction[..., object, Out],
    **settings: Unpack[ResumeArguments],
) -> Out: ...
@overload
def resume(
    flow: Flow[Input],
    run_id: str,
    *,
    output: str | PlainFunction,
    **settings: Unpack[ResumeArguments],
) -> object: ...
def resume(
    flow: Flow[Any],
    run_id: str,
    *,
    output: StepLike | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    max_poll_seconds: float = 2.0,
    dsn: str | None = None,
    data_dir: Path | str | None = None,
    timeout: float | None = None,
    observer: Observer | None = None,
    executor: Pool | Callable[[], Pool] | str | None = None,
    ship: Literal["cloudpickle"] | None = None,
    progress: bool = False,
    **settings: Unpack[RunOptions],
) -> Any:
    """Go on with a run that was interrupted; like :func:`run` otherwise. A finished run is only read.

    Steps that the code has got since it was started are added to it, unless it has failed.
    """
    reentry.refuse("resume()")
    wanted_step = None if output is None else step_in(flow, output)
    given = {"workers": workers, "batch_size": batch_size, "max_poll_seconds": max_poll_seconds}
    target, more = place_flow(flow, ship)
    request = RunRequest(
        target,
        flow.slug,
        run_id=run_id,
        resume=True,
        timeout=timeout,
        executor=executor,
        settings={**settings, **given, **more},
    )
    with showing(observer, flow.slug, run_id, progress=progress) as watcher:
        return _run(flow, request, dsn, data_dir, watcher, wanted_step)


def _run(
    flow: Flow,
    request: RunRequest,
    dsn: str | None,
    data_dir: Path | str | None,
    observer: Observer | None,
    wanted: StepDefinition | None,
    items: Any = None,
    pages: Iterator[loads.ItemPage] | None = None,
) -> Any:
    with public_errors(), open_state(dsn, data_dir) as database:
        mode = str(request.settings.get("compile", "check"))
        if request.key is not None:
            request = _of_key(database.dsn, flow, request, items, mode)
        elif request.loaded and request.run_id is not None:
            feeding_items.load_for(database.dsn, flow, items, checked_id(request.run_id), mode, pages)
        if request.resume and request.run_id is not None:
            adopting.adopt(database.dsn, flow, checked_id(request.run_id), mode)
        summary = execute(database, request, observer=observer)
        if summary.status == "completed" and wanted is not None:
            reader = output_reader(wanted)
            return ask(database.dsn, lambda conn: one_output(conn, summary.run_id, wanted.slug, reader))
        if summary.status == "completed":
            return whole_output(database.dsn, flow, summary.run_id)
    raise unfinished(flow, summary)


def _of_key(dsn: str, flow: Flow, request: RunRequest, items: Any, mode: str) -> RunRequest:
    """The request to go on with the run of the key, which is started if there is none."""
    request.worker_settings(dsn)  # refused before anything is started
    found = feeding_items.start_keyed(
        dsn,
        flow,
        str(request.key),
        items,
        request.input or b"{}",
        drawn=request.loaded,
        priority=request.priority,
        tags=request.tags,
        mode=mode,
    )
    return replace(request, run_id=found.run.run_id, resume=True, loaded=False)
