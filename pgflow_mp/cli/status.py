"""status: the runs of a database, or one of them with its steps and failures."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.known_runs import find_run, resume_command, retry_advice
from pgflow_mp.cli.output import encoded
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command
from pgflow_mp.errors import RunNotFound

if TYPE_CHECKING:
    from pgflow_mp.db.engine import Connection
    from pgflow_mp.observe.run_reports import StepReport
    from pgflow_mp.observe.whole_runs import WholeRun

_LONGEST_NAME: Final = 28


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} [RUN_ID] [OPTIONS]"
    parser.description = "Show the runs that were started last, or one run with its steps and failures."
    parser.add_argument("run", nargs="?", metavar="RUN_ID", help="a run's id, or how it begins")
    parser.option("--flow", env="PGFLOW_FLOW", metavar="SLUG", help="only runs of this flow")
    parser.option(
        "--limit",
        env="PGFLOW_LIMIT",
        metavar="N",
        default=20,
        convert=converters.count,
        help="how many runs, or failures of one run, to show (20)",
    )
    parser.option(
        "--errors",
        env="PGFLOW_ERRORS",
        flag=True,
        default=False,
        help="of one run: show the errors of its failed items as they are stored, with their tracebacks",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Print it."""
    from pgflow_mp.cli.connecting import never_used, open_database
    from pgflow_mp.observe.read_reports import read_runs

    choice = database_choice(args)
    if args.run is None and "errors" in args.given:
        raise UsageError("--errors is for one run", hint=f"Name it: {command('status')} RUN_ID --errors")
    if never_used(choice):
        if args.run is not None:
            raise RunNotFound(f"There is no run {args.run}: no run was ever started here")
        print("[]" if args.json else f"No runs yet. Start one: {command('run', 'simple')}")
        return 0
    with open_database(choice, writes=False) as database, database.connect() as conn:
        if args.run is None:
            runs = read_runs(conn, args.limit, flow=args.flow)
            if args.json:
                print(encoded(runs))
            elif runs:
                from pgflow_mp.cli.run_table import print_runs

                print_runs(runs)
            else:
                whose = "" if args.flow is None else f" of flow '{args.flow}'"
                print(f"No runs{whose} in {database.place}.")
            return 0
        limit = args.limit if args.json or args.errors else 0
        found = _read(conn, find_run(conn, args.run).run_id, limit, whole_inputs=args.json)
        if args.json:
            print(encoded(found))
        else:
            _show(found, database.options)
    return 0


def _read(conn: Connection, run_id: str, limit: int, *, whole_inputs: bool) -> WholeRun:
    from pgflow_mp.observe.whole_runs import read_whole_run

    found = read_whole_run(conn, run_id, limit, whole_inputs=whole_inputs)
    if found is None:  # removed in between
        raise RunNotFound(f"There is no run {run_id} in this database")
    return found


def _show(run: WholeRun, options: list[str]) -> None:
    from pgflow_mp.cli import failed_items
    from pgflow_mp.cli.run_table import ago
    from pgflow_mp.cli.screen import console, paint
    from pgflow_mp.observe.text import duration
    from pgflow_mp.observe.wording import sentence_of_run, words
    from pgflow_mp.redaction import printable

    screen = console(sys.stdout)
    screen.print(f"[bold]{run.flow_slug}[/]  run {run.run_id}")
    if run.key is not None:
        print(f"key {printable(run.key)}")
    if run.tags:
        print(f"tags {', '.join(run.tags)}")
    for each in run.reused:
        print(each.text)
    began = f"started {ago(run.started_at)}"  # which is also what the run's status is called until it ends
    took = f", took {duration(run.seconds)}"
    if run.finished_at is not None:
        screen.print(paint(words(run.state), run.state), f", {began}{took}\n", sep="")
    else:
        print(f"{began}{took} so far")
        screen.print(paint(sentence_of_run(run), run.state), soft_wrap=True)
        print()
    screen.print(_steps_table(run.steps))
    groups = run.failure_groups
    if groups:
        more = command("failures", run.run_id, *options)
        failed_items.print_groups(screen, run.all_failures(), failed_items.ROOM, more)
        failed_items.print_items(screen, run.failures)
        screen.print()
        print(f"See their tracebacks: {more}" if not run.failures else f"See them all: {more} --all")
    if run.status == "started":
        print(f"\nGo on with it here: {resume_command(None, run.run_id, *options)}")
    elif run.status == "failed" and (
        advice := retry_advice([example.error for group in groups for example in group.examples], run.unmet())
    ):
        print(f"\n{advice}: {resume_command(None, run.run_id, *options)}")
    elif run.status == "completed" and groups:
        again = command("retry", run.run_id, *options)
        print(f"\nAfter a correction, try what failed again, with what followed from it: {again}")


def _steps_table(steps: list[StepReport]) -> Any:
    from rich.table import Column, Table
    from rich.text import Text

    from pgflow_mp.cli.screen import paint
    from pgflow_mp.observe.text import duration, shorten, shorten_middle
    from pgflow_mp.observe.wording import remark_on_step

    table = Table(
        Column("step", no_wrap=True),
        Column("status", no_wrap=True),
        Column("items", justify="right", no_wrap=True),
        Column("took", justify="right", no_wrap=True),
        Column(""),  # the only one that gives way
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for step in steps:
        items = "" if step.initial_tasks is None else f"{step.initial_tasks:,}"
        if step.status in ("started", "failed") and step.initial_tasks is not None:
            done = step.counts.completed if step.status == "failed" else step.counts.done
            items = f"{done:,}/{items}"
        ended = step.finished_at is not None and step.started_at is not None
        status = step.state if step.status in ("created", "started") else step.status
        table.add_row(
            Text(shorten_middle(step.step_slug, _LONGEST_NAME)),
            paint(status, step.state),
            items,
            duration(step.seconds or 0) if ended else "",
            Text(shorten(remark_on_step(step), 200), no_wrap=True, overflow="ellipsis"),
        )
    return table
