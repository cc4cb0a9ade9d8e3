"""top: what the lanes of live workers do, again and again."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.live_workers import live_workers
from pgflow_mp.cli.output import encoded
from pgflow_mp.cli.parser import Parser, add_database, add_json, program

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from pgflow_mp.cli.connecting import OpenDatabase
    from pgflow_mp.observe.worker_reports import LaneReport, WorkerInfo

_LEAST: Final = 0.2
"""Seconds between two looks."""
_AROUND: Final = 4
"""Lines of a screen that are not lanes."""


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} [WORKER] [OPTIONS]"
    parser.description = (
        "Show what each lane of live workers does: the item that it runs, since when, its CPU and "
        "memory; on a terminal again and again, until Ctrl-C. Workers tell it every five seconds."
    )
    parser.add_argument(
        "worker", nargs="?", metavar="WORKER", help="its name, or how that begins, or its pid"
    )
    parser.option(
        "--once",
        env="PGFLOW_ONCE",
        flag=True,
        default=False,
        help="print it once; also where standard output is no terminal",
    )
    parser.option(
        "--interval",
        env="PGFLOW_INTERVAL",
        metavar="S",
        default=2.0,
        convert=converters.seconds,
        help="seconds between two looks (2)",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Show it."""
    from pgflow_mp.cli.connecting import never_used, open_database

    choice = database_choice(args)
    if never_used(choice):
        print(encoded({"workers": []}) if args.json else f"No workers. Start one: {program()} FLOW")
        return OK
    with open_database(choice, writes=False) as database:
        if args.json or args.once or not sys.stdout.isatty():
            with database.connect() as conn:
                found = live_workers(conn, args.worker)
            if args.json:
                print(encoded({"workers": found}))
            else:
                _print(found, database.place)
            return OK
        return _follow(database, args.worker, max(_LEAST, args.interval))


def _print(workers: list[WorkerInfo], place: str) -> None:
    from pgflow_mp.cli.screen import console

    if not workers:
        print(f"No worker is alive at {place}. Start one: {program()} FLOW")
        return
    screen = console(sys.stdout)
    screen.print(_picture(workers, screen.width, None))


def _follow(database: OpenDatabase, wanted: str | None, interval: float) -> int:
    from rich.live import Live

    from pgflow_mp.cli.screen import console

    screen = console(sys.stdout)
    try:
        with database.connect() as conn, Live(console=screen, screen=True, auto_refresh=False) as live:
            while True:
                workers = live_workers(conn, wanted)
                live.update(_picture(workers, screen.width, screen.height), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:  # which is how it ends
        return OK


def _picture(workers: list[WorkerInfo], width: int, height: int | None) -> Group:
    """All lanes, or as many as fit ``height`` lines, those that work first."""
    from rich.console import Group
    from rich.text import Text

    from pgflow_mp.observe.text import plural, size

    rows = [(worker, lane) for worker in workers for lane in worker.lanes or []]
    room = len(rows) if height is None else max(1, height - _AROUND)
    if len(rows) > room:
        rows.sort(key=lambda row: row[1].run_id is None)
    busy = sum(worker.busy_lanes or 0 for worker in workers)
    lanes = sum(worker.lane_count or 0 for worker in workers)
    cpu, rss = (sum(getattr(worker, name) or 0 for worker in workers) for name in ("cpu", "rss"))
    head = f"{plural(len(workers), 'worker')}, {busy} of {plural(lanes, 'lane')} in use, "
    head += f"{cpu:.1f} CPUs, {size(int(rss))}   {time.strftime('%H:%M:%S')}"
    parts: list[Text | Table] = [Text(head, style="bold", no_wrap=True, overflow="ellipsis")]
    if rows:
        parts.append(_table(rows[:room], len(workers) > 1, width))
    if len(rows) > room:
        parts.append(Text(f"... and {plural(len(rows) - room, 'more lane')}", style="dim"))
    untold = [worker.name for worker in workers if worker.lanes is None]
    if untold:
        names = ", ".join(untold[:5])
        parts.append(Text(f"nothing is told by {names}", style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _table(rows: list[tuple[WorkerInfo, LaneReport]], named: bool, width: int) -> Table:
    from rich.table import Column, Table
    from rich.text import Text

    from pgflow_mp.observe.text import duration, shorten_middle, size
    from pgflow_mp.redaction import printable

    table = Table(
        *([Column("worker", no_wrap=True)] if named else []),
        Column("lane", justify="right", no_wrap=True),
        Column("pid", justify="right", no_wrap=True),
        Column("item", no_wrap=True, overflow="ellipsis", min_width=10),
        Column("run", no_wrap=True),
        Column("since", justify="right", no_wrap=True),
        Column("cpu", justify="right", no_wrap=True),
        Column("memory", justify="right", no_wrap=True),
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for worker, lane in rows:
        item = lane.state if lane.step_slug is None else f"{lane.step_slug}[{lane.index}]"
        cells = [shorten_middle(printable(worker.name), max(8, width // 5))] if named else []
        cells += [
            str(lane.lane),
            "" if lane.pid is None else str(lane.pid),
            item,
            (lane.run_id or "")[:8],
            "" if lane.seconds is None else duration(lane.seconds),
            "" if lane.cpu is None else f"{lane.cpu:.2f}",
            "" if lane.rss is None else size(lane.rss),
        ]
        table.add_row(*(Text(cell) for cell in cells), style="" if lane.step_slug else "dim")
    return table
