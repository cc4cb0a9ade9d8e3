"""delete: a run that has ended, or a flow with all its runs, is removed with everything of it."""

from __future__ import annotations

import argparse
import json
import sys

from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.known_runs import neither, never_started, run_or_none
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command
from pgflow_mp.errors import FlowNotFound, InputError, RunNotFound


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} RUN_ID|FLOW [--yes] [OPTIONS]"
    parser.description = (
        "Remove a run that has ended, or a flow with all its runs, and everything of them: items, results, "
        "messages, artifacts. A flow is removed after you have confirmed it, or with --yes."
    )
    parser.add_argument(
        "what", metavar="RUN_ID|FLOW", help="the run's id, or how it begins; or the slug of a flow"
    )
    parser.option("--yes", env="PGFLOW_YES", flag=True, default=False, help="do not ask")
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Remove it."""
    from pgflow_mp.cli.connecting import never_used, open_database
    from pgflow_mp.client.client import Client
    from pgflow_mp.db.reads.runs import check_flow

    choice, what = database_choice(args), args.what.strip()
    if not what or "\0" in what:
        raise InputError("RUN_ID|FLOW must be the id of a run, or the slug of a flow")
    if never_used(choice):
        raise never_started(RunNotFound, f"flow or run {what!r}")
    with open_database(choice) as database, Client(database.dsn) as client:
        with database.connect() as conn:
            run = run_or_none(conn, what, database.options)
            if run is None:
                try:
                    check_flow(conn, what)
                except FlowNotFound:
                    raise neither(what, database.options) from None
        if run is not None:
            client.delete(str(run.run_id))
            told: dict[str, str | None] = {"flow": run.flow_slug, "run_id": str(run.run_id)}
            text = f"Removed run {run.run_id} of {run.flow_slug}."
        else:
            _confirm(what, database.options, yes=args.yes)
            client.delete(flow=what)
            told = {"flow": what, "run_id": None}
            text = f"Removed flow {what} with all its runs."
    print(json.dumps({**told, "deleted": True}) if args.json else text)
    return OK


def _confirm(flow: str, options: list[str], *, yes: bool) -> None:
    """Ask, unless that was answered. Raises UsageError where nobody can answer, or the answer is no."""
    if yes:
        return
    again = command("delete", flow, "--yes", *options)
    if not sys.stdin.isatty():
        raise UsageError(f"This removes flow {flow} with all its runs", hint=f"Confirm it: {again}")
    print(f"Remove flow {flow} with all its runs, also those that go on? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("Nothing was removed", hint=f"To remove it: {again}")
