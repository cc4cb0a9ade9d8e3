"""status: the runs of a database, or one of them with its steps and failures."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.known_runs import check_flow_asked, find_run, none_here, resume_command, retry_advice
from pgflow_mp.cli.output import encoded
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command
from pgflow_mp.cli.watch import Look, watch
from pgflow_mp.errors import WHY_NO_RUN, RunNotFound

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
    parser.option(
        "--group",
        env="PGFLOW_GROUP",
        metavar="BY",
        choices=("flow", "status"),
        help="how many runs there are of each flow, or in each status, instead of a line for each",
    )
    parser.option(
        "--watch",
        env="PGFLOW_WATCH",
        flag=True,
        default=False,
        help="show it until what is shown has ended: on a terminal all the time, else whenever it changes",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Print it."""
    from pgflow_mp.cli.connecting import never_used, open_database

    choice = database_choice(args)
    if args.run is None and "errors" in args.given:
        raise UsageError("--errors is for one run", hint=f"Name it: {command('status')} RUN_ID --errors")
    if args.run is not None and args.group is not None and "group" in args.given:
        raise UsageError("--group is for all runs", hint="Leave the run out, or --group.")
    by = args.group if args.run is None else None
    if never_used(choice):
        if args.run is not None:
            raise none_here(args.run, choice)
        check_flow_asked(None, args.flow)
        nothing = '{"groups":[]}' if by is not None else "[]"
        print(
            nothing if args.json else f"No runs yet. Start one: {command('run', 'simple', *choice.options)}"
        )
        return 0
    with open_database(choice, writes=False) as database, database.connect() as conn:
        check_flow_asked(conn, args.flow)
        if args.run is not None:
            limit = args.limit if args.json or args.errors else 0
            run_id = find_run(conn, args.run, database.options).run_id
            look = partial(_look_at_run, conn, run_id, limit, database.options, as_json=args.json)
        elif by is not None:
            look = partial(_look_at_counts, conn, args.flow, by, database.place, as_json=args.json)
        else:
            look = partial(_look_at_runs, conn, args.flow, args.limit, database.place, as_json=args.json)
        if args.watch:
            watch(look, draws=sys.stdout.isatty() and not args.json)
        else:
            look().show()
    return 0


def _look_at_run(conn: Connection, run_id: str, limit: int, options: list[str], *, as_json: bool) -> Look:
    found = _read(conn, run_id, limit, whole_inputs=as_json)
    key = (found.state, [(step.state, step.counts) for step in found.steps])
    show = partial(_print_json, found) if as_json else partial(_show, found, options)
    return Look(show, key, found.status == "started")


def _look_at_runs(conn: Connection, flow: str | None, limit: int, place: str, *, as_json: bool) -> Look:
    from pgflow_mp.cli.run_table import print_runs
    from pgflow_mp.observe.read_reports import read_runs

    runs = read_runs(conn, limit, flow=flow)
    show = partial(_print_json, runs) if as_json else partial(print_runs, runs)
    if not runs and not as_json:
        show = partial(print, _none_of(flow, place))
    key = [(run.run_id, run.state, run.counts) for run in runs]
    return Look(show, key, any(run.status == "started" for run in runs))


def _look_at_counts(conn: Connection, flow: str | None, by: str, place: str, *, as_json: bool) -> Look:
    from pgflow_mp.cli.run_counts import grouped, print_counts
    from pgflow_mp.observe.counted_runs import count_runs
    from pgflow_mp.observe.run_reports import OPEN_STATES

    counts = count_runs(conn, flow)
    groups = grouped(counts, by)
    show = partial(_print_json, {"groups": groups}) if as_json else partial(print_counts, counts, by)
    if not counts and not as_json:
        show = partial(print, _none_of(flow, place))
    return Look(show, groups, any(each[state] for each in counts.values() for state in OPEN_STATES))


def _print_json(found: object) -> None:
    print(encoded(found))


def _none_of(flow: str | None, place: str) -> str:
    whose = "" if flow is None else f' of flow "{flow}"'
    return f"No runs{whose} in {place}."


def _read(conn: Connection, run_id: str, limit: int, *, whole_inputs: bool) -> WholeRun:
    from pgflow_mp.observe.whole_runs import read_whole_run

    found = read_whole_run(conn, run_id, limit, whole_inputs=whole_inputs)
    if found is None:  # removed in between
        raise RunNotFound(f"There is no run {run_id} in this database", hint=WHY_NO_RUN)
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
