"""run: start one run, or go on with one, and execute it here to its end."""

from __future__ import annotations

import argparse
import uuid
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, TYPE_CHECKING

from pgflow_mp.cli import converters
from pgflow_mp.cli.asked import add_output, check_asked
from pgflow_mp.cli.command_line import RunOrder, run_order
from pgflow_mp.cli.complaints import OK, RUN_FAILED, STOPPED, TIMED_OUT
from pgflow_mp.cli.flow_targets import app_targets, flow_target
from pgflow_mp.cli.going_on import going_on
from pgflow_mp.cli.input_options import add_input
from pgflow_mp.cli.live_results import LiveResults
from pgflow_mp.cli.other_runs import OtherRuns
from pgflow_mp.cli.parser import Parser, add_database, add_json
from pgflow_mp.cli.reuse_options import add_reuse
from pgflow_mp.cli.taking import check_steps, find_reuse
from pgflow_mp.cli.working import add_only, add_work, watching
from pgflow_mp.errors import InputError, PgflowError

if TYPE_CHECKING:
    from pgflow_mp.cli.asked import Asked
    from pgflow_mp.cli.connecting import OpenDatabase
    from pgflow_mp.cli.feeding import Feed
    from pgflow_mp.cli.preflight import FlowFacts
    from pgflow_mp.cli.summary import Told
    from pgflow_mp.db.engine import Connection, RunRow
    from pgflow_mp.loading.targets import Target
    from pgflow_mp.observe.observer import ProgressSnapshot
    from pgflow_mp.run_request import RunSummary
    from pgflow_mp.values.inputs import RunInput


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} FLOW [--input INPUT] [--output FILE] [OPTIONS]"
    parser.description = "Start one run of a flow and execute it here, on all cores, to its end."
    parser.add_argument(
        "flow",
        nargs="?",
        metavar="FLOW",
        help="module:flow, path.py:flow, a flow file, or the name of a bundled example",
    )
    add_input(parser)
    add_reuse(parser)
    add_output(parser)
    parser.option(
        "--resume",
        env="PGFLOW_RESUME",
        metavar="RUN_ID",
        help="go on with a run that was interrupted, that failed (what failed is tried again), or that lacks "
        "new steps of the code",
    )
    parser.option(
        "--timeout",
        env="PGFLOW_TIMEOUT",
        convert=converters.seconds,
        metavar="S",
        help="stop after so long, in order; the run can be resumed (exit status 124)",
    )
    add_only(parser)
    add_json(parser)
    add_work(parser)
    add_database(parser)


@dataclass(frozen=True)
class Job:
    """What is known before the database is opened. ``flow`` is None if only the run can tell.

    ``given`` may be why there is no input, where a run may have the key.
    """

    order: RunOrder
    targets: list[Target]
    flows: list[FlowFacts]
    flow: FlowFacts | None
    given: RunInput | Feed | InputError | None


def execute(args: argparse.Namespace) -> int:
    """Execute the run and tell how it went; 0 if it completed."""
    return perform(run_order(args))


def perform(order: RunOrder, job: Job | None = None) -> int:
    """The same of an order, whichever command gave it, and what is known of it already."""
    from pgflow_mp.cli import summary
    from pgflow_mp.cli.connecting import open_database
    from pgflow_mp.cli.growing import adopt
    from pgflow_mp.cli.output import stdout_for_results

    job = prepare(order) if job is None else replace(job, order=order)
    workers = order.work.processes
    with stdout_for_results() as results, open_database(order.database, workers=workers) as database:
        flow, run, is_new = _find(job, database)
        asked = check_asked(order, flow)
        if run is not None:
            with database.connect() as conn:
                run = adopt(conn, flow, run, str(order.work.settings["compile"]))
        code, done = OK, None
        live = LiveResults(asked if order.follow else (), database, results)
        if run is None or run.status != "completed":
            try:
                code, done = _work(job, flow, run, database, live, is_new=is_new)
            finally:
                live.end(completed=done is not None and done.status == "completed")
        told = summary.of(order, flow, run, done, database)
        with going_on(order, told.run_id, database.options):
            summary.look(told, database)
            _write(told, asked, database, results, live)
        summary.tell(told, results)
    return code


def _write(
    told: Told, asked: list[Asked], database: OpenDatabase, results: IO[str], live: LiveResults
) -> None:
    """Write what was asked for, if the run has completed. Raises PgflowError once all was tried."""
    from pgflow_mp.cli.asked import can_be_written_again, size_of, write_asked
    from pgflow_mp.db.public_errors import public_errors

    if told.status != "completed":
        told.unwritten = [file.name for file in asked if file.name != "-"]
        return
    errors: list[PgflowError] = []
    for file in asked:
        option = "--output FILE" if file.option == "--output" else f"--results {file.step}=FILE"
        hint = f"The output stays in the database: {told.resume} {option}"
        try:
            with public_errors():
                if file in live.errors:
                    raise live.errors[file]
                write = partial(write_asked, run_id=told.run_id, asked=file, results=results, hint=hint)
                if file in live.written:
                    size = size_of(file)
                elif can_be_written_again(file):
                    size = database.ask(write)
                else:
                    with database.connect() as conn:
                        size = write(conn)
        except PgflowError as error:
            errors.append(error)
            continue
        if file.option == "--output":
            told.written = size
        else:
            told.results.append((str(file.step), file.name, size))
    if errors:
        raise errors[0]


def prepare(order: RunOrder) -> Job:
    """Everything that can be wrong with flow and input is found here, before anything is started."""
    from pgflow_mp.cli import feeding, keyed, preflight

    handlers = order.work.settings["handlers"]
    targets = app_targets(None, handlers) if order.flow is None else [flow_target(order.flow, handlers)]
    if order.resume is not None:
        flows = preflight.look_at(targets)
        flow = flows[0] if len(flows) == 1 else None
        if flow is not None:
            check_asked(order, flow)
        return Job(order, targets, flows, flow, None)
    assert order.flow is not None  # noqa: S101 - run_order sees to it
    given = feeding.read(order.input, order.database, order.work.processes)
    flows, flow, feed = keyed.prepare(targets, order.flow, order.input, given, order.key, order.database)
    check_asked(order, flow)
    check_steps(order.reuse, flow)
    return Job(order, targets, flows, flow, feed)


def _find(job: Job, database: OpenDatabase) -> tuple[FlowFacts, RunRow | None, bool]:
    """The flow, the run to go on with, if there is one, and whether it was started just now.

    That is so for one with a key. Raises RunNotFound, FlowNotFound, and InputError for another input.
    """
    from pgflow_mp.cli.known_runs import find_run

    order = job.order
    if order.resume is None:
        assert job.flow is not None  # noqa: S101 - _prepare has chosen it
        if order.key is None:
            return job.flow, None, True
        return job.flow, *_of_key(job, job.flow, order.key, database)
    with database.connect() as conn:
        run = find_run(conn, order.resume, database.options)
    return flow_of(job, run), run, False


def flow_of(job: Job, run: RunRow) -> FlowFacts:
    """The flow of a run that exists. Raises FlowNotFound."""
    from pgflow_mp.cli.known_runs import not_here, resume_command

    flow = next((flow for flow in job.flows if flow.slug == run.flow_slug), None)
    if flow is None:
        again = resume_command(None, str(run.run_id), *job.order.database.options)
        here = (flow.slug for flow in job.flows)
        raise not_here(run, here, f"Name the file or module that holds it: {again}")
    return flow


def _of_key(job: Job, flow: FlowFacts, key: str, database: OpenDatabase) -> tuple[RunRow, bool]:
    from pgflow_mp.cli.compiling import compile_flow
    from pgflow_mp.cli.keyed import KeyedStart, is_given

    order, how = job.order, str(job.order.work.settings["compile"])
    assert job.given is not None  # noqa: S101 - a flow that is known has some input, or none can be
    with database.connect() as conn:
        found = KeyedStart(
            flow.slug,
            key,
            job.given,
            is_given(order.input),
            order.priority,
            order.tags,
            lambda: compile_flow(conn, flow, how),
            how == "recreate",
        ).start(conn, database.dsn)
    return found.run, found.is_new


def _work(
    job: Job,
    flow: FlowFacts,
    run: RunRow | None,
    database: OpenDatabase,
    live: LiveResults,
    *,
    is_new: bool,
) -> tuple[int, RunSummary]:
    """Start or go on with the run and serve it; the exit status, and what was done."""
    from pgflow_mp import runner
    from pgflow_mp.cli.compiling import compile_flow
    from pgflow_mp.cli.connecting import beside
    from pgflow_mp.cli.feeding import Feed
    from pgflow_mp.run_request import RunRequest, StateDatabase

    order = job.order
    run_id = str(uuid.uuid4()) if run is None else run.run_id
    begin = f"{'starting' if is_new else 'resuming'} run {run_id} of {flow.slug} on {database.place}"
    title = f"{flow.slug}  run {run_id}"
    reuse = None
    if order.reuse is not None:
        with database.connect() as conn:
            reuse = find_reuse(conn, order.reuse, flow, database.options)
    feed = job.given if isinstance(job.given, Feed) and run is None else None
    if feed is not None:
        with database.connect() as conn:
            compile_flow(conn, flow, str(order.work.settings["compile"]))
        feed.load(database.dsn, flow.slug, run_id)
    request = RunRequest(
        job.targets[flow.target],
        flow.slug,
        input=_input_of(job.given) if run is None else None,
        loaded=feed is not None,
        run_id=run_id,
        resume=run is not None,
        retry=not is_new,
        timeout=order.timeout,
        priority=order.priority,
        tags=order.tags,
        reuse=reuse,
        executor=order.work.executor,
        settings={**order.work.settings, "artifacts_beside": beside(database.server)},
    )
    with watching(order.work, title, begin, names_flows=False, preliminary=flow.slug, run_id=run_id) as (
        observer,
        heard,
    ):
        only = bool(order.work.settings["only"])
        others = OtherRuns(flow.slug, run_id, observer, database.options, only=only)

        has_begun = False

        def begun(conn: Connection) -> None:
            """The run is stored, and nothing refuses it any more: now its id is good for something."""
            nonlocal has_begun
            has_begun = True
            observer.open()
            others.mention(conn)
            live.begin(run_id)

        try:
            state = StateDatabase(database.dsn, database.place, None)
            done = runner.execute(state, request, observer=observer, begun=begun)
            observer.on_progress(_last_picture(database, done))
        except (Exception, KeyboardInterrupt):
            if not has_begun:
                if heard.numbers:
                    raise KeyboardInterrupt from None
                raise
            with going_on(order, str(run_id), database.options):
                if heard.numbers:
                    raise KeyboardInterrupt from None
                raise
    if done.status == "completed":
        return OK, done
    if done.status == "failed":
        return RUN_FAILED, done
    if heard.numbers or not (done.by_operator or done.timed_out):
        return heard.exit_code, done
    return (STOPPED if done.by_operator else TIMED_OUT), done


def _input_of(given: RunInput | Feed | InputError | None) -> bytes | None:
    if given is None or isinstance(given, InputError):
        return None
    return given.params if hasattr(given, "params") else given.json


def _last_picture(database: OpenDatabase, done: RunSummary) -> ProgressSnapshot:
    """The run as it was left; the worker's own last snapshot is a moment older."""
    from pgflow_mp.db import engine
    from pgflow_mp.observe.observer import ProgressSnapshot, StepSnapshot

    failed = done.failed.by_step()
    rows = database.ask(lambda conn: engine.run_progress(conn, done.run_id))
    steps: list[StepSnapshot] = []
    for row in rows:
        total, rate = row.initial_tasks, 0.0
        count = 0
        if total is not None and row.status != "created":
            count = total - (row.remaining_tasks or 0)
        if row.started_at is not None and row.finished_at is not None:
            rate = count / max(1e-3, (row.finished_at - row.started_at).total_seconds())
        steps.append(
            StepSnapshot(
                done.flow, row.step_slug, row.status, count, total, failed.get(row.step_slug, 0), rate, None
            )
        )
    return ProgressSnapshot(tuple(steps), 0, done.lanes, 0.0, 0, 0, "connected", 0.0)
