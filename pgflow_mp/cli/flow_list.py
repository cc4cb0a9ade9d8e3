"""flows: the flows of a database, how many runs of each are how, and who works on them."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.output import encoded
from pgflow_mp.cli.parser import Parser, add_database, add_json, command

if TYPE_CHECKING:
    from pgflow_mp.observe.worker_reports import FlowReport


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} [OPTIONS]"
    parser.description = (
        "List the flows of the database, how their runs are, and how many workers serve them."
    )
    parser.option(
        "--limit",
        env="PGFLOW_LIMIT",
        metavar="N",
        default=200,
        convert=converters.count,
        help="how many flows to show (200)",
    )
    parser.option(
        "--after",
        env="PGFLOW_AFTER",
        metavar="SLUG",
        default="",
        help="only flows behind this one in the order of slugs: the next page",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Print them."""
    from pgflow_mp.cli.connecting import never_used, open_database
    from pgflow_mp.observe.read_reports import read_flows

    choice = database_choice(args)
    if never_used(choice):
        nothing = f"No flows yet. Run one: {command('run', 'simple', *choice.options)}"
        print(encoded({"flows": [], "next": None}) if args.json else nothing)
        return 0
    with open_database(choice, writes=False) as database, database.connect() as conn:
        found = read_flows(conn, min(args.limit, 2**31 - 2) + 1, after=args.after)
        shown, more = found[: args.limit], len(found) > args.limit
        if args.json:
            print(encoded({"flows": shown, "next": shown[-1].flow_slug if more else None}))
            return 0
        if not shown:
            print(f"No {'more ' if args.after else ''}flows in {database.place}.")
            return 0
        _print(shown)
        if more:
            print(f"\nThere are more; add --after {shown[-1].flow_slug}")
    return 0


def _print(flows: list[FlowReport]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from pgflow_mp.cli.run_table import NARROWEST, ago
    from pgflow_mp.cli.screen import console, paint
    from pgflow_mp.observe.wording import queue_of_flow

    table = Table(
        Column("flow", min_width=4),
        Column("steps", justify="right", no_wrap=True),
        Column("queued", justify="right", no_wrap=True),
        Column("running", justify="right", no_wrap=True),
        Column("waiting", justify="right", no_wrap=True),
        Column("done, failed\nin 24 h", no_wrap=True),
        Column("workers", justify="right", no_wrap=True),
        Column("last run", no_wrap=True),
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for flow in flows:
        table.add_row(
            Text(flow.flow_slug, overflow="fold"),
            f"{len(flow.steps):,}",
            f"{flow.queued_runs:,}",
            f"{flow.running_runs:,}",
            f"{flow.waiting_runs:,}",
            f"{flow.completed_day:,}, {flow.failed_day:,}",
            paint("paused", "paused") if flow.paused else f"{flow.workers:,}",
            "" if flow.last_started_at is None else ago(flow.last_started_at),
        )
    screen = console(sys.stdout)
    screen.width = max(screen.width, NARROWEST)
    screen.print(table)
    told = [(flow.flow_slug, text) for flow in flows if (text := queue_of_flow(flow))]
    if told:
        print()
    for slug, text in told:
        screen.print(paint(f"{slug}: {text}", "waiting"), soft_wrap=True)
