"""retry: a failed run goes on with the items that failed or were not finished."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pgflow_mp.cli import converters
from pgflow_mp.cli.asked import add_output
from pgflow_mp.cli.command_line import database_choice, run_order
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.known_runs import open_run, resume_command
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json
from pgflow_mp.cli.working import add_work
from pgflow_mp.errors import InputError

if TYPE_CHECKING:
    from pgflow_mp.db.engine import Connection, RunRow


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} --failed RUN_ID [FLOW] [--work] [OPTIONS]"
    parser.description = (
        "Queue again what failed in a run, and what was not finished when it failed; finished work is kept.\n"
        "Workers execute it, or this command does: --work."
    )
    parser.add_argument(
        "--failed", action="store_true", help="only what is not finished, which is the only way so far"
    )
    parser.add_argument("run", metavar="RUN_ID", help="the run's id, or how it begins")
    parser.add_argument(
        "flow", nargs="?", metavar="FLOW", help="where the flow is: module:flow, path.py:flow, an example"
    )
    parser.option(
        "--work",
        env="PGFLOW_WORK",
        flag=True,
        default=False,
        help="execute it here to its end, as run --resume does",
    )
    parser.option(
        "--new-steps",
        env="PGFLOW_NEW_STEPS",
        flag=True,
        default=False,
        help="add the steps that its flow has got since it was started, those of FLOW if it is named",
    )
    add_output(parser, "with --work: ")
    parser.option(
        "--timeout",
        env="PGFLOW_TIMEOUT",
        metavar="S",
        convert=converters.seconds,
        help="with --work: stop after so long, in order (exit status 124)",
    )
    add_json(parser)
    add_work(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Queue the items, and execute them if asked to."""
    choice = database_choice(args)
    if args.work:  # run --resume retries a failed run before it works on it
        from pgflow_mp.cli import run as run_verb

        order = run_order(args, resume=args.run)
        with open_run(choice, args.run) as (database, conn, run):
            if not args.new_steps:  # which run --resume adds
                _check(conn, run, args.flow, database.options)
        return run_verb.perform(replace(order, resume=run.run_id))
    from pgflow_mp.db import engine

    for name in ("output", "output_format", "results", "timeout"):
        if name in args.given:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} is for --work", hint="Workers know nothing of this command.")
    if args.new_steps:
        from pgflow_mp.cli.growing import add_new_steps

        return add_new_steps(choice, args.run, args.flow, args.compile, as_json=args.json)
    with open_run(choice, args.run) as (database, conn, run):
        _check(conn, run, args.flow, database.options)
        queued = engine.retry_failed_tasks(conn, run.run_id)
        status = engine.run_status(conn, run.run_id) or "started"
        options = database.options
    if args.json:
        print(json.dumps({"run_id": str(run.run_id), "flow": run.flow_slug, "queued": queued}))
        return OK
    from pgflow_mp.observe.text import plural

    print(f"Queued {plural(queued, 'item')} of run {run.run_id} of {run.flow_slug} again.")
    if status == "started":
        print(f"Workers will execute it, or here: {resume_command(args.flow, run.run_id, *options)}")
    return OK


def _check(conn: Connection, run: RunRow, flow: str | None, options: list[str]) -> None:
    from pgflow_mp.db import engine
    from pgflow_mp.observe.text import plural

    if run.status == "failed":
        return
    failed = sum(step.failed_tasks for step in engine.run_progress(conn, run.run_id))
    if run.status == "started":
        hint = f"It can be gone on with: {resume_command(flow, run.run_id, *options)}"
    elif failed:
        hint = f"{plural(failed, 'item')} failed in it, as its flow tolerates; all else is done."
    else:
        hint = "All of its work is done."
    raise InputError(f"Run {run.run_id} is {run.status}; only a failed run can be retried", hint=hint)
