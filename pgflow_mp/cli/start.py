"""start: a run is put into the database; workers execute it."""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from typing import TYPE_CHECKING, Any

from pgflow_mp.cli.command_line import database_choice, input_choice
from pgflow_mp.cli.input_options import add_input
from pgflow_mp.cli.parser import Parser, add_database, add_json, command
from pgflow_mp.errors import FlowNotFound

if TYPE_CHECKING:
    import psycopg

    from pgflow_mp.cli.feeding import Feed
    from pgflow_mp.cli.preflight import FlowFacts


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} FLOW [--input INPUT] [OPTIONS]"
    parser.description = "Start a run and print its id. Workers execute it: python -m pgflow_mp TARGET."
    parser.add_argument(
        "flow", metavar="FLOW", help="module:flow, path.py:flow, an example, or a flow in the database"
    )
    add_input(parser)
    parser.option(
        "--compile",
        env="PGFLOW_COMPILE",
        choices=("check", "extend", "skip", "recreate"),
        default="check",
        metavar="HOW",
        help="a flow that differs from the database: check (take over new steps, refuse the rest; the "
        "default), extend (conditions, too), skip, recreate",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Start the run and print its id."""
    from pgflow_mp import streams
    from pgflow_mp.cli import feeding
    from pgflow_mp.cli.asked import unwritable
    from pgflow_mp.cli.compiling import compile_flow
    from pgflow_mp.cli.connecting import open_database
    from pgflow_mp.loading.targets import Target
    from pgflow_mp.values.inputs import RunInput

    choice, choice_of_database = input_choice(args), database_choice(args)
    flow: FlowFacts | None = None
    feed: RunInput | feeding.Feed | None = None
    missing: Exception | None = None
    given = feeding.read(choice, choice_of_database.dsn)
    try:
        _, flow, feed = feeding.prepare([Target.parse(args.flow)], args.flow, choice, given)
    except FlowNotFound as error:
        if not args.flow.isidentifier():
            raise
        missing = error  # perhaps the database knows a flow of this name
        feed = feeding.for_unknown(choice, given)
    with open_database(choice_of_database) as database, database.connect() as conn:
        slug = args.flow if flow is None else flow.slug
        if flow is None:
            _check_known(conn, slug, missing, database.place)
        else:
            compile_flow(conn, flow, args.compile)
        if isinstance(feed, feeding.Feed):
            run_id = _start_loaded(conn, slug, feed, args.priority)
        else:
            run_id = _start(conn, slug, (feed or RunInput(b"{}", "")).json, args.priority, database.place)
        place = database.place
    if args.json:
        print(json.dumps({"run_id": run_id, "flow": slug, "database": place}), flush=True)
    else:
        print(run_id, flush=True)
    if (lost := streams.failure(1)) is not None:
        raise unwritable(lost, f"Run {run_id} was started all the same.")
    if args.json:
        return 0
    if sys.stderr.isatty():
        print(f"Started {slug} in {place}. Work on it: {command(args.flow)}", file=sys.stderr)
    return 0


def _start(
    conn: psycopg.Connection[tuple[Any, ...]], slug: str, input: bytes, priority: int, place: str
) -> str:
    import psycopg

    from pgflow_mp.db import engine

    try:
        return engine.start_flow(conn, slug, input, priority=priority)
    except psycopg.errors.ForeignKeyViolation:
        raise FlowNotFound(
            f"There is no flow '{slug}' in {place}",
            hint="Have a role that may create flows start it, or a worker that serves it.",
        ) from None


def _start_loaded(conn: psycopg.Connection[tuple[Any, ...]], slug: str, feed: Feed, priority: int) -> str:
    from pgflow_mp.db import loads

    run_id = str(uuid.uuid4())
    feed.load(conn, slug, run_id)
    try:
        return loads.start_loaded_once(conn, run_id, feed.params, priority=priority).run_id
    except BaseException:
        loads.drop(conn, run_id)
        raise


def _check_known(
    conn: psycopg.Connection[tuple[Any, ...]], slug: str, missing: Exception | None, place: str
) -> None:
    import psycopg

    from pgflow_mp.db.reads import runs

    try:
        known = runs.known_flows(conn)
    except psycopg.errors.InsufficientPrivilege:  # starting will tell
        return
    if slug not in known:
        raise FlowNotFound(
            f"{missing}, and no flow '{slug}' in {place}",
            hint=f"Flows there: {', '.join(known)}." if known else getattr(missing, "hint", ""),
        )
