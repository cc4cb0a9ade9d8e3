"""top: what the lanes of live workers do, again and again."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.live_workers import live_workers, start_one
from pgflow_mp.cli.output import encoded
from pgflow_mp.cli.parser import Parser, add_database, add_json

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from pgflow_mp.cli.connecting import OpenDatabase
    from pgflow_mp.observe.worker_reports import LaneReport, WorkerInfo

_LEAST: Final = 0.2
"""Seconds between two looks."""
_AROUND: Final = 4
"""Lines of a screen that are not lanes."""
_COLUMNS: Final = ("worker", "lane", "pid", "item", "run", "since", "cpu", "memory")
_SHORTEST: Final = 16
"""Columns of the screen that items need; others are left out where there are not so many."""


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
        print(encoded({"workers": []}) if args.json else f"No workers. {start_one(choice.options)}")
        return OK
    with open_database(choice, writes=False) as database:
        if args.json or args.once or not sys.stdout.isatty():
            with database.connect() as conn:
                found = live_workers(conn, args.worker, database.options)
            if args.json:
                print(encoded({"workers": found}))
            else:
                _print(found, database)
            return OK
        return _follow(database, args.worker, max(_LEAST, args.interval))


def _print(workers: list[WorkerInfo], database: OpenDatabase) -> None:
    from pgflow_mp.cli.screen import console

    if not workers:
        print(f"No worker is alive at {database.place}. {start_one(database.options)}")
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
                workers = live_workers(conn, wanted, database.options)
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
    """The columns that fit, with the names of steps as long as there is room."""
    from rich.table import Column, Table
    from rich.text import Text

    from pgflow_mp.observe.text import shorten_middle
    from pgflow_mp.redaction import printable

    columns = [column for column in _COLUMNS if named or column != "worker"]
    cells = {name: [_cell(name, worker, lane) for worker, lane in rows] for name in columns}
    if named:
        limit = max(8, width // 5)
        cells["worker"] = [shorten_middle(printable(name), limit) for name in cells["worker"]]
    for spare in ("run", "pid", "worker", "memory", "cpu"):
        if _room(cells, width) < _SHORTEST and spare in cells:
            del cells[spare]
    room = max(_SHORTEST, _room(cells, width))
    cells["item"] = [_item(lane, room) for _, lane in rows]
    left = ("worker", "item", "run")
    table = Table(
        *(Column(name, no_wrap=True, justify="left" if name in left else "right") for name in cells),
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for number, (_, lane) in enumerate(rows):
        style = "" if lane.step_slug else "dim"
        table.add_row(*(Text(column[number]) for column in cells.values()), style=style)
    return table


def _room(cells: dict[str, list[str]], width: int) -> int:
    """Columns of the screen that the others leave for items."""
    return width - sum(2 + max(map(len, (name, *column))) for name, column in cells.items() if name != "item")


def _item(lane: LaneReport, room: int) -> str:
    from pgflow_mp.observe.text import shorten_middle

    if lane.step_slug is None:
        return lane.state
    index = f"[{lane.index}]"
    return shorten_middle(lane.step_slug, max(5, room - len(index))) + index


def _cell(name: str, worker: WorkerInfo, lane: LaneReport) -> str:
    from pgflow_mp.observe.text import duration, size

    told: dict[str, str | None] = {
        "worker": worker.name,
        "lane": str(lane.lane),
        "pid": None if lane.pid is None else str(lane.pid),
        "run": lane.run_id and lane.run_id[:8],
        "since": None if lane.seconds is None else duration(lane.seconds),
        "cpu": None if lane.cpu is None else f"{lane.cpu:.2f}",
        "memory": None if lane.rss is None else size(lane.rss),
    }
    return told.get(name) or ""
