"""start: a run is put into the database; workers execute it."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice, input_choice, reuse_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.flow_targets import add_handlers, handler_words
from pgflow_mp.cli.input_options import add_input
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command
from pgflow_mp.cli.reuse_options import add_reuse
from pgflow_mp.cli.start_order import StartedRun, StartOrder, WantedRun, ordered, start_anew, start_keyed_run
from pgflow_mp.cli.tag_options import tag_choice

if TYPE_CHECKING:
    import psycopg

    from pgflow_mp.cli.connecting import OpenDatabase


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} FLOW [--input INPUT] [OPTIONS]"
    parser.description = "Start a run and print its id. Workers execute it: python -m pgflow_mp TARGET."
    parser.add_argument(
        "flow",
        metavar="FLOW",
        help="module:flow, path.py:flow, a flow file, an example, or a flow in the database",
    )
    add_input(parser)
    add_handlers(parser)
    add_reuse(parser)
    parser.option(
        "--compile",
        env="PGFLOW_COMPILE",
        choices=("check", "extend", "skip", "recreate"),
        default="check",
        metavar="HOW",
        help="a flow that differs from the database: check (the default) takes over new "
        "steps and refuses the rest; extend (conditions, too), skip, recreate",
    )
    parser.option(
        "--after",
        env="PGFLOW_START_AFTER",
        metavar="WHEN",
        convert=converters.later,
        help="work on it from then on only: 10m, 2h (from now), 2026-11-27T03:00; resume RUN_ID: at once",
    )
    parser.option(
        "--wait",
        env="PGFLOW_WAIT",
        flag=True,
        default=False,
        help="wait until workers have ended it: exit status 0 if it completed, "
        "1 if not; Ctrl-C leaves it alone",
    )
    parser.option(
        "--timeout",
        env="PGFLOW_TIMEOUT",
        convert=converters.seconds,
        metavar="S",
        help="--wait so long at most (exit status 124)",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Start the run and print its id."""
    from pgflow_mp.cli import keyed
    from pgflow_mp.cli.awaiting import wait_for_run
    from pgflow_mp.cli.connecting import open_database
    from pgflow_mp.db import reusing
    from pgflow_mp.db.pausing import check_when

    choice, choice_of_database = input_choice(args), database_choice(args)
    taken, tags = reuse_choice(args), tag_choice(args.tag)
    if "timeout" in args.given and not args.wait:
        raise UsageError(
            "--timeout is for --wait, which is missing", hint="Give --wait, too: start alone does not wait."
        )
    wanted = WantedRun(
        *(args.flow, args.handlers, args.key, args.priority, tags),
        after=check_when(args.after, "--after"),
        compile=args.compile,
    )
    order = ordered(wanted, choice, choice_of_database, taken)
    with open_database(choice_of_database) as database, database.connect() as conn:
        if args.key is None:
            started = StartedRun(start_anew(order, conn, database, taken))
        else:
            started = start_keyed_run(order, args.key, conn, database, was_given=keyed.is_given(choice))
        for each in [] if taken is None else reusing.reused(conn, started.run_id):
            print(each.text, file=sys.stderr)
        _tell(order, started, conn, database, as_json=args.json, waits=args.wait)
        if not args.wait:
            return OK
        conn.close()
        work = command("work", args.flow, *handler_words(args.flow, args.handlers), *database.options)
        return wait_for_run(database, started.run_id, order.slug, work, args.timeout)


def _tell(
    order: StartOrder,
    started: StartedRun,
    conn: psycopg.Connection[tuple[Any, ...]],
    database: OpenDatabase,
    *,
    as_json: bool,
    waits: bool,
) -> None:
    """Print the run's id, and for people what becomes of it."""
    wanted = order.wanted
    record: dict[str, Any] = {"run_id": started.run_id, "flow": order.slug, "database": database.place}
    if wanted.after is not None and as_json:
        record["starts_at"] = _held_until(conn, started.run_id)
    if wanted.key is not None:
        record |= {"key": wanted.key, "is_new": started.is_new, "status": started.status}
    _print_id(record, as_json=as_json)
    if wanted.key is not None and not started.is_new and not as_json:
        _tell_of_known(wanted.key, started.run_id, started.status, database.options)
    elif sys.stderr.isatty() and not as_json:
        served = [*handler_words(wanted.flow, wanted.handlers), *database.options]
        later = "" if wanted.after is None else f" Nothing of it is worked on before {_clock(wanted.after)}."
        further = "" if waits else f" Work on it: {command(wanted.flow, *served)}"
        print(f"Started {order.slug} in {database.place}.{later}{further}", file=sys.stderr)


def _print_id(record: dict[str, Any], *, as_json: bool) -> None:
    """Print the id, or all of the record. Raises where nobody can read it."""
    from pgflow_mp import streams
    from pgflow_mp.cli.asked import unwritable

    print(json.dumps(record) if as_json else record["run_id"], flush=True)
    if (lost := streams.failure(1)) is not None:
        raise unwritable(lost, f"Run {record['run_id']} was started all the same.")


def _held_until(conn: psycopg.Connection[tuple[Any, ...]], run_id: str) -> str | None:
    """When workers may begin with the run, by the server's clock; None: at once."""
    from pgflow_mp.db.pausing import list_pauses

    found = [pause.until for pause in list_pauses(conn) if str(pause.run_id) == run_id]
    return found[0].astimezone(UTC).isoformat() if found and found[0] is not None else None


def _clock(after: datetime | timedelta) -> str:
    when = datetime.now().astimezone() + after if isinstance(after, timedelta) else after
    return f"{when.astimezone():%Y-%m-%d %H:%M}"


def _tell_of_known(key: str, run_id: str, status: str, options: list[str]) -> None:
    again = command("retry", "--failed", run_id, *options)
    hint = f" Try what failed again: {again}" if status == "failed" else ""
    word = {"started": "under way"}.get(status, status)
    print(f'note: the key "{key}" has this run already; it is {word}.{hint}', file=sys.stderr)
