"""status: the runs of a database, or one of them with its steps and failures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.known_runs import find_run, resume_command, retry_advice
from pgflow_mp.cli.output import json_object
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command
from pgflow_mp.errors import RunNotFound

if TYPE_CHECKING:
    from pgflow_mp.db.engine import Connection, RunRow, StepProgress
    from pgflow_mp.db.reads.runs import RecentRun
    from pgflow_mp.db.reads.tasks import EndedTasks
    from pgflow_mp.db.reusing import Reused
    from pgflow_mp.observe.reports import FailedItem, RunFailures

_NARROWEST: Final = 80  # columns: what is cut off in a narrower terminal cannot be copied
_ID_AS_GOOD: Final = 13  # characters that name a run as well as all 36, where flows have long names
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
    from pgflow_mp.db.reads.runs import recent_runs
    from pgflow_mp.db.run_keys import keys_of

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
            runs = recent_runs(conn, args.limit, args.flow)
            keys = keys_of(conn, [run.run_id for run in runs]) if runs else {}
            if args.json:
                records = [run._asdict() | {"key": keys.get(run.run_id)} for run in runs]
                print(f"[{', '.join(map(json_object, records))}]")
            elif runs:
                _list(conn, runs, keys)
            else:
                whose = "" if args.flow is None else f" of flow '{args.flow}'"
                print(f"No runs{whose} in {database.place}.")
            return 0
        limit = args.limit if args.json or args.errors else 0
        found = _read(conn, find_run(conn, args.run), limit, whole_inputs=args.json)
        if args.json:
            print(json_object(_record(found), failures=found.first, failure_groups=found.failures.groups))
        else:
            _show(conn, found, database.options)
    return 0


def _list(conn: Connection, runs: list[RecentRun], keys: dict[str, str]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from pgflow_mp.cli.screen import console, styled
    from pgflow_mp.db.reads import worked
    from pgflow_mp.observe.text import duration
    from pgflow_mp.redaction import printable

    table = Table(
        Column("run", no_wrap=True),
        Column("flow", min_width=4),
        *([Column("key", min_width=4)] if keys else []),
        Column("status", no_wrap=True),
        Column("items", justify="right", no_wrap=True),
        Column("started", no_wrap=True),
        Column("took", justify="right", no_wrap=True),
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    spans = worked.worker_spans(conn, min(run.started_at for run in runs))
    screen = console(sys.stdout)
    screen.width = max(screen.width, _NARROWEST)
    rows = []
    for run in runs:
        items = f"{run.items:,}" if run.done >= run.items else f"{run.done:,}/{run.items:,}"
        ended = run.finished_at or datetime.now(run.started_at.tzinfo)
        took = duration(worked.seconds(spans, run.flow_slug, run.started_at, ended))
        names = [run.flow_slug, *([printable(keys.get(run.run_id, ""))] if keys else [])]
        rows.append((str(run.run_id), *names, run.status, items, _ago(run.started_at), took))
    lacking = sum(max(map(len, column)) for column in zip(*rows, strict=True)) - screen.width
    lacking += 2 * (len(rows[0]) - 1)
    shown = 36 if lacking <= 0 else max(_ID_AS_GOOD, 36 - lacking)
    for run_id, *names, status, count, began, took in rows:
        cells = [Text(name, no_wrap=True, overflow="ellipsis") for name in names]
        table.add_row(run_id[:shown], *cells, styled(status), count, began, took)
    screen.print(table)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A run with what there is to say of it; ``first`` are the first of its failed items, if asked for."""

    run: RunRow
    steps: list[StepProgress]
    failures: RunFailures
    first: list[FailedItem]
    ended: dict[str, EndedTasks]
    storages: dict[str, str]
    key: str | None
    reused: list[Reused]


def _read(conn: Connection, run: RunRow, limit: int, *, whole_inputs: bool) -> _Shown:
    from pgflow_mp.db import engine, reusing
    from pgflow_mp.db.reads import tasks
    from pgflow_mp.db.reads.storages import storages
    from pgflow_mp.db.run_keys import keys_of
    from pgflow_mp.observe import grouping

    steps, whole = engine.run_progress(conn, run.run_id), grouping.WHOLE if whole_inputs else 0
    failures = grouping.read_failures(conn, run.run_id, steps, whole=whole)
    first = grouping.earliest(conn, run.run_id, limit, whole)[0] if limit and failures.failed else []
    failed = failures.by_step()
    steps = [step._replace(failed_tasks=failed.get(step.step_slug, 0)) for step in steps]
    ended = tasks.ended_with_others(conn, run.run_id, steps)
    key = keys_of(conn, [run.run_id]).get(str(run.run_id))
    reused = reusing.reused(conn, str(run.run_id))
    return _Shown(run, steps, failures, first, ended, storages(conn, run.run_id), key, reused)


def _record(shown: _Shown) -> dict[str, Any]:
    from pgflow_mp.db.reads.tasks import EndedTasks

    return shown.run._asdict() | {
        "key": shown.key,
        "reused": [each._asdict() for each in shown.reused],
        "steps": [
            {
                **step._asdict(),
                "cancelled_tasks": over.cancelled,
                "skipped_tasks": over.skipped,
                "storage": shown.storages.get(step.step_slug),
            }
            for step in shown.steps
            for over in (shown.ended.get(step.step_slug, EndedTasks()),)
        ],
        "failed_tasks": shown.failures.failed,
    }


def _show(conn: Connection, shown: _Shown, options: list[str]) -> None:
    from pgflow_mp.cli import failed_items
    from pgflow_mp.cli.screen import console, styled
    from pgflow_mp.db.reads import tasks, worked
    from pgflow_mp.observe.text import duration
    from pgflow_mp.redaction import printable

    run, screen = shown.run, console(sys.stdout)
    end = run.completed_at or run.failed_at
    spans = worked.worker_spans(conn, run.started_at)
    until = end or datetime.now(run.started_at.tzinfo)
    took = duration(worked.seconds(spans, run.flow_slug, run.started_at, until))
    screen.print(f"[bold]{run.flow_slug}[/]  run {run.run_id}")
    if shown.key is not None:
        print(f"key {printable(shown.key)}")
    for each in shown.reused:
        print(each.text)
    began = f"started {_ago(run.started_at)}"  # which is also what the run's status is called until it ends
    screen.print(f"{styled(run.status)}, {began}, took {took}\n" if end else f"{began}, took {took} so far\n")
    screen.print(_steps_table(shown.steps, shown.ended, partial(worked.seconds, spans, run.flow_slug)))
    groups = shown.failures.groups
    if groups:
        more = command("failures", run.run_id, *options)
        failed_items.print_groups(screen, shown.failures, failed_items.ROOM, more)
        failed_items.print_items(screen, shown.first)
        screen.print()
        print(f"See their tracebacks: {more}" if not shown.first else f"See them all: {more} --all")
    if run.status == "started":
        print(f"\nGo on with it here: {resume_command(None, run.run_id, *options)}")
    elif run.status == "failed" and (
        advice := retry_advice(
            [example.error for group in groups for example in group.examples], tasks.unmet_step(shown.steps)
        )
    ):
        print(f"\n{advice}: {resume_command(None, run.run_id, *options)}")
    elif run.status == "completed" and groups:
        again = command("retry", run.run_id, *options)
        print(f"\nAfter a correction, try what failed again, with what followed from it: {again}")


def _steps_table(
    steps: list[StepProgress], ended: dict[str, EndedTasks], seconds: Callable[[datetime, datetime], float]
) -> Any:
    """``seconds`` tells how much of a time there was somebody to work."""
    from rich.table import Column, Table
    from rich.text import Text

    from pgflow_mp.cli.screen import styled
    from pgflow_mp.observe.text import duration, shorten, shorten_middle

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
            items = f"{step.initial_tasks - (step.remaining_tasks or 0):,}/{items}"
        took = ""
        if step.started_at is not None and step.finished_at is not None:
            took = duration(seconds(step.started_at, step.finished_at))
        remark = (step.error_message if step.status == "failed" else step.skip_reason) or ""
        over = ended.get(step.step_slug)
        if over is not None:
            count = f"{over.cancelled:,} cancelled" if over.cancelled else f"{over.skipped:,} skipped"
            remark = f"{count}; {remark}" if remark else count
        table.add_row(
            Text(shorten_middle(step.step_slug, _LONGEST_NAME)),
            styled(step.status),
            items,
            took,
            Text(shorten(remark.partition("\n")[0], 200), no_wrap=True, overflow="ellipsis"),
        )
    return table


def _ago(when: datetime) -> str:
    seconds = (datetime.now(when.tzinfo) - when).total_seconds()
    for limit, unit, word in (
        (60, 1, "s"),
        (3600, 60, "min"),
        (86400, 3600, "h"),
        (14 * 86400, 86400, "days"),
    ):
        if seconds < limit:
            number = int(max(0, seconds) // unit)
            return f"{number} {word[:-1] if word == 'days' and number == 1 else word} ago"
    return f"{when.astimezone():%Y-%m-%d}"
