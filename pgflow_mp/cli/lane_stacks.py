"""stacks: where the code of workers that are alive is at this moment."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK, RUN_FAILED
from pgflow_mp.cli.live_workers import live_workers, start_one
from pgflow_mp.cli.output import encoded
from pgflow_mp.cli.parser import Parser, add_database, add_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgflow_mp.observe.read_stacks import LaneStackReport, StackFrame, WorkerStacks


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} [WORKER] [OPTIONS]"
    parser.description = (
        "Print where the code of live workers is: of each lane the item that it runs and its Python stack, "
        "the latest call last. Nothing is stopped, and no item is disturbed.\n\n"
        "Workers are asked through the database, so they may be anywhere."
    )
    parser.add_argument(
        "worker", nargs="?", metavar="WORKER", help="its name, or how that begins, or its pid"
    )
    parser.option(
        "--answer-within",
        env="PGFLOW_ANSWER_WITHIN",
        metavar="S",
        default=5.0,
        convert=converters.seconds,
        help="how long workers have to answer (5)",
    )
    parser.option(
        "--with-threads",
        env="PGFLOW_WITH_THREADS",
        flag=True,
        default=False,
        help="the threads of the worker's own process, too",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Print them; 1 if a worker has given no answer."""
    from pgflow_mp.cli.connecting import never_used, open_database
    from pgflow_mp.observe.read_stacks import read_stacks

    choice = database_choice(args)
    if never_used(choice):
        print(encoded({"workers": []}) if args.json else f"No workers. {start_one(choice.options)}")
        return OK
    with open_database(choice) as database, database.connect() as conn:
        workers = live_workers(conn, args.worker, database.options)
        found = read_stacks(conn, workers, args.answer_within)
    if args.json:
        print(encoded({"workers": found}))
    elif not found:
        print(f"No worker is alive at {database.place}. {start_one(database.options)}")
    else:
        from pgflow_mp.redaction import printable

        for line in _lines(found, threads=args.with_threads, wait=args.answer_within):
            print(printable(line))
    sys.stdout.flush()
    return OK if all(worker.answered for worker in found) else RUN_FAILED


def _lines(found: list[WorkerStacks], *, threads: bool, wait: float) -> Iterator[str]:
    from pgflow_mp.observe.text import plural

    for number, worker in enumerate(found):
        if number:
            yield ""
        flows = f"  {', '.join(worker.flows)}" if worker.flows else ""
        yield f"worker {worker.worker}  {plural(len(worker.lanes), 'lane')}{flows}"
        if not worker.answered:
            yield f"  no answer within {wait:g} s: it is of an older version, busy starting, or stands still"
        for lane in worker.lanes:
            yield f"  lane {lane.lane}  {_what(lane)}"
            yield from _stack(lane.frames)
        for thread in worker.threads:
            if threads or thread.works:
                yield f"  thread {thread.name}"
                yield from _stack(thread.frames)


def _what(lane: LaneStackReport) -> str:
    from pgflow_mp.observe.text import duration

    told = [f"pid {lane.pid}"] if lane.pid is not None else []
    if lane.step_slug is not None:
        since = "" if lane.seconds is None else f" for {duration(lane.seconds)}"
        told.append(f"{lane.step_slug}[{lane.index}]{since}")
        told.append(f"run {(lane.run_id or '')[:13]}" + (f" of {lane.flow_slug}" if lane.flow_slug else ""))
    if lane.note:
        told.append(lane.note)
    return "  ".join(told)


def _stack(frames: list[StackFrame]) -> Iterator[str]:
    for frame in frames:
        yield f'    File "{frame.file}", line {frame.line or "?"}, in {frame.function}'
        if frame.source:
            yield f"      {frame.source}"
