"""drain: workers claim nothing more, end what they run, and stop."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK, TIMED_OUT
from pgflow_mp.cli.known_runs import never_started
from pgflow_mp.cli.parser import Parser, add_database, add_json, command
from pgflow_mp.errors import FlowNotFound, InputError

if TYPE_CHECKING:
    from pgflow_mp.db.draining import Drained
    from pgflow_mp.db.engine import Connection

_LOOK_EVERY: Final = 0.5
_MOST: Final = 10_000
"""Workers that are alive."""


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} FLOW|WORKER [--wait] [OPTIONS]"
    parser.description = (
        "Have workers claim nothing more, end what they run, and stop: all that serve a flow, or one, by "
        "its name (host:pid, or its --name) or id. They notice within their heartbeat interval."
    )
    parser.add_argument("what", metavar="FLOW|WORKER", help="a flow's slug; or a worker's name or id")
    parser.option("--wait", env="PGFLOW_WAIT", flag=True, default=False, help="until they have stopped")
    parser.option(
        "--timeout",
        env="PGFLOW_TIMEOUT",
        metavar="S",
        convert=converters.seconds,
        help="with --wait: not longer than so (exit status 124)",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Drain them; 124 if they had not stopped in time."""
    from pgflow_mp.cli.connecting import never_used, open_database

    choice, what = database_choice(args), args.what.strip()
    if not what or "\0" in what:
        raise InputError("FLOW|WORKER must be the slug of a flow, or a worker's name or id")
    if never_used(choice):
        raise never_started(FlowNotFound, f"flow or worker {what!r}")
    with open_database(choice) as database, database.connect() as conn:
        drained = _drain(conn, what, command("workers", *database.options))
        left = _wait(conn, drained, args.timeout) if args.wait else []
    workers = sorted({worker.name for worker in drained})
    if args.json:
        print(json.dumps({"drained": workers, "running": left if args.wait else None}))
    else:
        print(_in_words(what, workers, left, waited=args.wait))
    return TIMED_OUT if left else OK


def _drain(conn: Connection, what: str, look: str) -> list[Drained]:
    """A flow of this slug, else the worker of this name. Raises FlowNotFound where there is neither."""
    from pgflow_mp.db import draining
    from pgflow_mp.db.reads.lists import list_workers

    try:
        return draining.drain_workers(conn, flow=what)
    except FlowNotFound:
        drained = draining.drain_workers(conn, worker=what)
        known = {name for worker in list_workers(conn, _MOST) for name in (worker.name, worker.worker_id)}
        if not drained and what not in known:
            raise FlowNotFound(
                f"There is no flow, and no worker, {what!r} in this database",
                hint=f"See which there are: {look}",
            ) from None
        return drained


def _wait(conn: Connection, drained: list[Drained], timeout: float | None) -> list[str]:
    """Until they have stopped, or are dead; the names of those that have not in time."""
    from pgflow_mp.db.reads.lists import list_workers

    ids = {worker.worker_id for worker in drained}
    deadline = None if timeout is None else time.monotonic() + timeout
    while left := {worker.name for worker in list_workers(conn, _MOST) if worker.worker_id in ids}:
        if deadline is not None and time.monotonic() > deadline:
            return sorted(left)
        time.sleep(_LOOK_EVERY)
    return []


def _in_words(what: str, workers: list[str], left: list[str], *, waited: bool) -> str:
    from pgflow_mp.observe.text import plural

    if not workers:
        return f"Nothing to do: no worker of {what} is alive that was not told to drain before."
    told = f"Told to drain: {plural(len(workers), 'worker')} ({', '.join(workers)})."
    if not waited:
        return told
    return f"{told}\n" + (f"Not stopped yet: {', '.join(left)}." if left else "No longer at work.")
