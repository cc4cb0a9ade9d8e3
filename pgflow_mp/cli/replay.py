"""replay: one item of a run is executed again in this process, to look at what happens."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK, RUN_FAILED
from pgflow_mp.cli.flow_targets import add_handlers, app_targets
from pgflow_mp.cli.known_runs import no_step, not_here, open_run
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command
from pgflow_mp.errors import FlowNotFound, InputError, PgflowError

if TYPE_CHECKING:
    from pgflow_mp.db.engine import RunRow
    from pgflow_mp.db.reads.tasks import StoredTask
    from pgflow_mp.flows.flow import Flow
    from pgflow_mp.flows.handlers import PreparedHandler


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} RUN_ID STEP [INDEX [FLOW]] [--pdb] [OPTIONS]"
    parser.description = (
        "Execute one item of a run again, in this process, and print its output or its traceback.\n"
        "Nothing is recorded; the connection that the step gets by ctx.connect() is read-only."
    )
    parser.add_argument("run", metavar="RUN_ID", help="the run's id, or how it begins")
    parser.add_argument("step", metavar="STEP", help="the step's slug")
    parser.add_argument(
        "index",
        nargs="?",
        metavar="INDEX",
        type=converters.natural,
        default=0,
        help="the item's position in a map, from 0 on",
    )
    parser.add_argument(
        "flow",
        nargs="?",
        metavar="FLOW",
        help="where the flow is: module:flow, path.py:flow, a flow file, an example; INDEX comes before it",
    )
    parser.option(
        "--pdb",
        env="PGFLOW_PDB",
        flag=True,
        default=False,
        help="after an exception, look around with Python's debugger",
    )
    add_handlers(parser)
    add_json(parser)
    add_database(parser)


@dataclass(frozen=True, slots=True)
class _Item:
    """One item of a run, as it is recorded."""

    run: RunRow
    step: str
    index: int
    task: StoredTask
    is_map: bool

    @property
    def given(self) -> bytes:
        """What it was given, raw JSON: of a step of one task without parents the run's input."""
        input = self.task.input or b"null"
        return self.task.flow_input if not self.is_map and input == b"{}" else input

    @property
    def named(self) -> str:
        """``parse[1] "a.gz"``."""
        from pgflow_mp.observe import glimpse

        text, whole = glimpse.of_raw(self.given)
        return f"{self.step}[{self.index}] {glimpse.one_line(text, whole=whole)}".rstrip()


class _Replayed(NamedTuple):
    completed: bool
    body: bytes
    seconds: float
    error: BaseException | None


def execute(args: argparse.Namespace) -> int:
    """Execute the item; 0 if it completes."""
    from pgflow_mp.cli.output import stdout_for_results

    if args.json and args.pdb:
        raise UsageError("--json and --pdb cannot be used together", hint="The debugger needs the terminal.")
    with open_run(database_choice(args), args.run, writes=False) as (database, conn, run):
        from pgflow_mp.db.reads.tasks import stored_task

        is_map = _check_step(conn, run, args.step, args.index)
        task = stored_task(conn, run.run_id, args.step, args.index)
        if task is None or task.input is None:
            raise InputError(
                f'Step "{args.step}" of run {run.run_id} has no item {args.index} yet',
                hint="Its items are made when the step starts, in windows if there are very many.",
            )
        conn.close()
        item = _Item(run, args.step, args.index, task, is_map)
        again = command("replay", args.run, args.step, str(args.index), "FLOW", *database.options)
        with stdout_for_results():  # what modules print is no output of the item
            flow = _load(item, args.flow, args.handlers, again)
        if args.pdb:
            with _started(flow, item.step) as prepared:
                done = _replay(prepared, item, database.dsn)
                _tell(item, done, sys.stdout)
                if not done.completed:
                    _debug(done)
        else:
            with stdout_for_results() as results:  # what the handler prints goes to standard error
                with _started(flow, item.step) as prepared:
                    done = _replay(prepared, item, database.dsn)
                (_tell_programs if args.json else _tell)(item, done, results)
    return OK if done.completed else RUN_FAILED


def _check_step(conn: Any, run: RunRow, step: str, index: int) -> bool:
    """Whether the step is a map; raises where it has no such item."""
    from pgflow_mp.db import engine

    steps = {row.step_slug: row for row in engine.run_progress(conn, run.run_id)}
    if step not in steps:
        raise no_step(run, step, steps)
    row = steps[step]
    if row.initial_tasks is None or row.started_at is None:
        raise InputError(
            f'Step "{step}" of run {run.run_id} is {row.status} and was never started: it has no items',
            hint="An item can be replayed once its step has started.",
        )
    if index >= row.initial_tasks:
        last = row.initial_tasks - 1
        has = "no items" if last < 0 else "one item, 0" if last == 0 else f"the items 0 to {last}"
        raise InputError(f'Step "{step}" of run {run.run_id} has no item {index}', hint=f"It has {has}.")
    return row.step_type == "map"


def _load(item: _Item, flow: str | None, handlers: Sequence[str], again: str) -> Flow:
    """Load the flow into this process. ``again`` is this command, with FLOW added."""
    from pgflow_mp.loading import finding

    run = item.run
    targets = app_targets(flow, handlers)
    here: list[str] = []
    for target in targets:
        try:
            flows = finding.load_flows(target)
        except PgflowError:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            text = f"Loading {target} failed with {type(error).__name__}: {error}"
            raise FlowNotFound(text, hint="Import it in Python to see why.") from error
        for found in flows:
            if found.slug == run.flow_slug:
                return found
            here.append(found.slug)
    raise not_here(run, here, f"Name the file or module that holds it: {again}")


@contextlib.contextmanager
def _started(flow: Flow, step: str) -> Iterator[PreparedHandler]:
    """The step's handler ready to run, with what the flow's on_start functions have made for the block."""
    from pgflow_mp.flows import handlers
    from pgflow_mp.flows.on_start import ProcessValues
    from pgflow_mp.loading import reentry

    prepared = handlers.prepare(flow, step)  # what is wrong with it is said before anything is done
    values = ProcessValues(flow.slug, flow.start_functions)
    with reentry.executing():
        made = values.start()
    try:
        yield handlers.prepare(flow, step, made) if made else prepared
    finally:
        for failed in values.close():
            print(failed, file=sys.stderr)


def _replay(prepared: PreparedHandler, item: _Item, dsn: str) -> _Replayed:
    """Execute by the rules of a lane, keeping the exception itself for the debugger."""
    from pgflow_mp.flows.context import Context, Runtime
    from pgflow_mp.flows.failures import describe_exception
    from pgflow_mp.flows.handlers import COMPLETED
    from pgflow_mp.flows.invocation import noting
    from pgflow_mp.loading import reentry
    from pgflow_mp.observe.text import duration
    from pgflow_mp.redaction import printable
    from pgflow_mp.values import artifacts

    run, task = item.run, item.task
    raised: list[BaseException] = []
    prepared.call = noting(prepared.call, raised)
    runtime = Runtime(dsn=_read_only(dsn), artifacts=artifacts.throwaway())
    ctx = Context(
        str(run.run_id),
        run.flow_slug,
        item.step,
        item.index,
        max(1, task.attempts),
        task.message_id or 0,
        task.input or b"null",
        task.flow_input,
        runtime,
        task.paged,
    ).enter()
    began = time.perf_counter()
    faulthandler.enable(all_threads=False)  # an item that crashes its process shows where
    try:
        with reentry.executing():
            kind, body = prepared.execute(task.input or b"null", task.flow_input, ctx)
    finally:
        seconds = time.perf_counter() - began
        runtime.close()
    error = raised[0] if raised else None
    if isinstance(error, KeyboardInterrupt):  # an item that never ends is replayed to see where it is
        print(f"{item.named} was here after {duration(seconds)}", file=sys.stderr)
        print(printable(describe_exception(error).decode("utf-8", "replace")), file=sys.stderr, flush=True)
        raise error
    return _Replayed(kind == COMPLETED, body, seconds, error)


def _read_only(dsn: str) -> str:
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    options = conninfo_to_dict(dsn).get("options") or ""
    return make_conninfo(dsn, options=f"{options} -c default_transaction_read_only=on".strip())


def _tell_programs(item: _Item, done: _Replayed, results: Any) -> None:
    """One JSON object."""
    told = {
        "run_id": str(item.run.run_id),
        "flow": item.run.flow_slug,
        "step": item.step,
        "index": item.index,
        "recorded": item.task.status,
        "status": "completed" if done.completed else "failed",
        "seconds": round(done.seconds, 6),
        "error": None if done.completed else done.body.decode("utf-8", "replace"),
    }
    output = done.body.decode() if done.completed else "null"
    given = item.given.decode("utf-8", "replace")
    print(f'{json.dumps(told)[:-1]}, "input": {given}, "output": {output}}}', file=results)


def _tell(item: _Item, done: _Replayed, results: Any) -> None:
    from pgflow_mp.observe.text import duration
    from pgflow_mp.redaction import printable

    how = "completed" if done.completed else "failed"
    print(
        f"{item.named} {how} here after {duration(done.seconds)}; the run has it as {item.task.status}",
        file=sys.stderr,
    )
    if done.completed:
        print(done.body.decode(), file=results, flush=True)
    else:
        print(printable(done.body.decode("utf-8", "replace")), file=sys.stderr, flush=True)


def _debug(done: _Replayed) -> None:
    """Look around where the handler failed."""
    if done.error is not None and done.error.__traceback__ is not None:
        import pdb

        pdb.post_mortem(done.error.__traceback__)
