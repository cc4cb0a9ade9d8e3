"""start: a run is put into the database; workers execute it."""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice, input_choice, reuse_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.flow_targets import add_handlers, flow_target, handler_words
from pgflow_mp.cli.input_options import add_input
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command
from pgflow_mp.cli.reuse_options import add_reuse
from pgflow_mp.cli.tag_options import tag_choice
from pgflow_mp.cli.taking import check_steps, find_reuse
from pgflow_mp.errors import FlowNotFound, InputError

if TYPE_CHECKING:
    import psycopg

    from pgflow_mp.cli.preflight import FlowFacts
    from pgflow_mp.db.pausing import When
    from pgflow_mp.db.reusing import Reuse


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
    from pgflow_mp.cli import feeding, keyed
    from pgflow_mp.cli.awaiting import wait_for_run
    from pgflow_mp.cli.compiling import compile_flow
    from pgflow_mp.cli.connecting import open_database
    from pgflow_mp.db import reusing
    from pgflow_mp.db.pausing import check_when
    from pgflow_mp.values.inputs import RunInput

    choice, choice_of_database = input_choice(args), database_choice(args)
    taken, tags = reuse_choice(args), tag_choice(args.tag)
    if "timeout" in args.given and not args.wait:
        raise UsageError(
            "--timeout is for --wait, which is missing", hint="Give --wait, too: start alone does not wait."
        )
    after = check_when(args.after, "--after")
    flow: FlowFacts | None = None
    feed: RunInput | feeding.Feed | InputError | None = None
    missing: Exception | None = None
    given = feeding.read(choice, choice_of_database)
    try:
        _, flow, feed = keyed.prepare(
            [flow_target(args.flow, args.handlers)], args.flow, choice, given, args.key, choice_of_database
        )
        check_steps(taken, flow)
    except FlowNotFound as error:
        if flow is not None or not args.flow.isidentifier():
            raise
        missing = error  # perhaps the database knows a flow of this name
        feed = feeding.for_unknown(choice, given)
    with open_database(choice_of_database) as database, database.connect() as conn:
        slug = args.flow if flow is None else flow.slug
        feed = feed or RunInput(b"{}", "")

        def known() -> None:
            if flow is None:
                _check_known(conn, slug, missing, database.place)
            else:
                compile_flow(conn, flow, args.compile)

        if args.key is not None:
            again = args.compile == "recreate" or flow is None
            given_one = keyed.is_given(choice)
            job = keyed.KeyedStart(slug, args.key, feed, given_one, args.priority, tags, known, again, after)
            found = job.start(conn, database.dsn)
            run_id, is_new, status = str(found.run.run_id), found.is_new, found.run.status
        else:
            known()
            is_new, status = True, "started"
            reuse = find_reuse(conn, taken, flow, database.options)
            if isinstance(feed, feeding.Feed):
                run = feed.start(
                    database.dsn, slug, priority=args.priority, tags=tags, after=after, key=None, reuse=reuse
                ).run
                run_id = str(run.run_id)
            else:
                assert isinstance(feed, RunInput)  # noqa: S101 - errors are for runs with a key
                run_id = _start(conn, slug, feed.json, args.priority, tags, after, database.place, reuse)
        served = [*handler_words(args.flow, args.handlers), *database.options]
        reused = [] if taken is None else reusing.reused(conn, run_id)
        for each in reused:
            print(each.text, file=sys.stderr)
        record: dict[str, Any] = {"run_id": run_id, "flow": slug, "database": database.place}
        if after is not None and args.json:
            record["starts_at"] = _held_until(conn, run_id)
        if args.key is not None:
            record |= {"key": args.key, "is_new": is_new, "status": status}
        _print_id(record, as_json=args.json)
        if not is_new and not args.json:
            _tell_of_known(args.key, run_id, status, database.options)
        elif sys.stderr.isatty() and not args.json:
            later = "" if after is None else f" Nothing of it is worked on before {_clock(after)}."
            further = "" if args.wait else f" Work on it: {command(args.flow, *served)}"
            print(f"Started {slug} in {database.place}.{later}{further}", file=sys.stderr)
        if not args.wait:
            return OK
        conn.close()
        work = command("work", args.flow, *served)
        return wait_for_run(database, run_id, slug, work, args.timeout)


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


def _start(
    conn: psycopg.Connection[tuple[Any, ...]],
    slug: str,
    input: bytes,
    priority: int,
    tags: tuple[str, ...],
    after: When | None,
    place: str,
    reuse: Reuse | None,
) -> str:
    import psycopg

    from pgflow_mp.db import engine, run_tags
    from pgflow_mp.db.starting import start_once

    if reuse is not None:
        run_id = str(uuid.uuid4())
        start_once(conn, slug, input, run_id, priority=priority, tags=tags, after=after, reuse=reuse)
        return run_id
    try:
        with run_tags.marking(conn, tags, after) as tag:
            run_id = engine.start_flow(conn, slug, input, priority=priority)
            tag(run_id)
        return run_id
    except psycopg.errors.ForeignKeyViolation:
        raise FlowNotFound(
            f'There is no flow "{slug}" in {place}',
            hint="Have a role that may create flows start it, or a worker that serves it.",
        ) from None


def _tell_of_known(key: str, run_id: str, status: str, options: list[str]) -> None:
    again = command("retry", "--failed", run_id, *options)
    hint = f" Try what failed again: {again}" if status == "failed" else ""
    word = {"started": "under way"}.get(status, status)
    print(f'note: the key "{key}" has this run already; it is {word}.{hint}', file=sys.stderr)


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
            f'{missing}, and no flow "{slug}" in {place}',
            hint=f"Flows there: {', '.join(known)}." if known else getattr(missing, "hint", ""),
        )
