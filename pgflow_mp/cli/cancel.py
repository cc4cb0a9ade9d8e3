"""cancel: a run is ended as failed, and the workers stop what they run of it."""

from __future__ import annotations

import argparse
import json

from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK, RUN_FAILED
from pgflow_mp.cli.known_runs import ended_already, open_run
from pgflow_mp.cli.parser import Parser, add_database, add_json, command
from pgflow_mp.errors import InputError


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} RUN_ID [--reason TEXT] [OPTIONS]"
    parser.description = (
        "End a run as failed. Workers stop what they run of it within about two seconds; what is recorded\n"
        "stays, and the run can be gone on with later (retry)."
    )
    parser.add_argument("run", metavar="RUN_ID", help="the run's id, or how it begins")
    parser.option(
        "--reason",
        env="PGFLOW_REASON",
        metavar="TEXT",
        default="Run cancelled",
        help="the error that its unfinished steps get (Run cancelled)",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Cancel the run; 1 if it had ended before."""
    from pgflow_mp.db import engine

    if "\0" in args.reason:
        raise InputError("--reason must not contain a NUL character")
    with open_run(database_choice(args), args.run) as (database, conn, found):
        cancelled = found.status == "started"
        run = engine.cancel_run(conn, found.run_id, args.reason) if cancelled else found
        steps = engine.run_progress(conn, run.run_id)
        options = database.options
        refusal = "" if cancelled else ended_already(conn, run)
    open_items = sum(step.remaining_tasks or 0 for step in steps if step.status == "failed")
    if args.json:
        told = {"run_id": str(run.run_id), "flow": run.flow_slug, "status": run.status}
        print(json.dumps({**told, "cancelled": cancelled, "unfinished": open_items}))
    elif cancelled:
        from pgflow_mp.observe.text import plural

        print(f"Cancelled run {run.run_id} of {run.flow_slug}: {plural(open_items, 'item')} not finished.")
        print(f"Go on with it: {command('retry', '--failed', str(run.run_id), *options)}")
    else:
        print(refusal)
    return OK if cancelled else RUN_FAILED
