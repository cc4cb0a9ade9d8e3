"""workers: who works on the flows of a database, where, and what their lanes do."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.known_runs import check_flow_asked
from pgflow_mp.cli.live_workers import start_one
from pgflow_mp.cli.output import encoded
from pgflow_mp.cli.parser import Parser, add_database, add_json

if TYPE_CHECKING:
    from pgflow_mp.observe.worker_reports import WorkerInfo

_LANES: Final = 32
"""Lanes that are told of, a line each."""


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} [OPTIONS]"
    parser.description = "List the workers that are alive, and the flows that they serve."
    parser.option(
        "--all",
        env="PGFLOW_ALL",
        flag=True,
        default=False,
        help="those, too, that have stopped or died, as far as the database remembers",
    )
    parser.option("--flow", env="PGFLOW_FLOW", metavar="SLUG", help="only workers of this flow")
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Print them."""
    from pgflow_mp.cli.connecting import never_used, open_database
    from pgflow_mp.observe.read_reports import read_workers

    choice = database_choice(args)
    if never_used(choice):
        check_flow_asked(None, args.flow)
        print(encoded({"workers": []}) if args.json else f"No workers. {start_one(choice.options)}")
        return 0
    with open_database(choice, writes=False) as database, database.connect() as conn:
        check_flow_asked(conn, args.flow)
        found = [
            worker
            for worker in read_workers(conn, alive_only=not args.all)
            if args.flow is None or args.flow in worker.flows
        ]
        if args.json:
            print(encoded({"workers": found}))
        elif found:
            _print(found)
        else:
            whose = "" if args.flow is None else f' of flow "{args.flow}"'
            print(f"No workers{whose} at {database.place}. {start_one(database.options)}")
    return 0


def _print(workers: list[WorkerInfo]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from pgflow_mp.cli.run_table import NARROWEST, ago
    from pgflow_mp.cli.screen import console, paint, print_line
    from pgflow_mp.observe.text import duration, size
    from pgflow_mp.redaction import printable

    table = Table(
        Column("worker", no_wrap=True),
        Column("state", no_wrap=True),
        Column("lanes", justify="right", no_wrap=True),
        Column("cpu", justify="right", no_wrap=True),
        Column("memory", justify="right", no_wrap=True),
        Column("started", no_wrap=True),
        Column("seen", no_wrap=True),
        Column("flows", min_width=5),
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for worker in workers:
        over = worker.state in ("stopped", "dead")
        lanes = "" if over or worker.lane_count is None else f"{worker.busy_lanes or 0}/{worker.lane_count}"
        table.add_row(
            Text(printable(worker.name), no_wrap=True, overflow="ellipsis"),
            paint(worker.state, worker.state),
            lanes,
            "" if over or worker.cpu is None else f"{worker.cpu:.1f}",
            "" if over or worker.rss is None else size(worker.rss),
            ago(worker.started_at),
            ago(worker.last_seen_at),
            Text(", ".join(worker.flows), no_wrap=True, overflow="ellipsis"),
        )
    screen = console(sys.stdout)
    screen.width = max(screen.width, NARROWEST)
    screen.print(table)
    busy = [(worker, lane) for worker in workers for lane in worker.lanes or [] if lane.run_id is not None]
    if busy:
        print()
    for worker, lane in busy[:_LANES]:
        where = f"{lane.step_slug}[{lane.index}] of {lane.flow_slug}, run {(lane.run_id or '')[:13]}"
        since = "" if lane.seconds is None else f", for {duration(lane.seconds)}"
        print_line(screen, printable(f"{worker.name} lane {lane.lane}: {where}{since}"))
    if len(busy) > _LANES:
        print(f"... and {len(busy) - _LANES} more lanes (--json)")
