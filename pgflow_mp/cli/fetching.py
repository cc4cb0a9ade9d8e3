"""results: what a run has computed, into a file or to standard output."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pgflow_mp.cli.asked import Asked, check_place, write_asked, write_elements
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.known_runs import open_run
from pgflow_mp.cli.parser import Parser, add_database, command
from pgflow_mp.errors import FlowNotFound, InputError
from pgflow_mp.io.sinks import FORMATS

if TYPE_CHECKING:
    from pgflow_mp.db.engine import Connection, RunRow
    from pgflow_mp.db.reads.runs import StepRow


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} RUN_ID [STEP] [--output FILE] [OPTIONS]"
    parser.description = (
        "Write the results of a step, or the output of a run, in index order, whenever it was computed."
    )
    parser.add_argument("run", metavar="RUN_ID", help="the run's id, or how it begins")
    parser.add_argument(
        "step", nargs="?", metavar="STEP", help="the step's slug; without it the run's last one"
    )
    parser.option(
        "--output",
        "-o",
        env="PGFLOW_OUTPUT",
        default="-",
        metavar="FILE",
        help="where to: .json, .jsonl, .csv or .parquet; - is standard output, which is the default",
    )
    parser.option(
        "--format",
        env="PGFLOW_OUTPUT_FORMAT",
        choices=FORMATS,
        metavar="FORMAT",
        help=f"how it is to be written, whatever the file's ending: {', '.join(FORMATS)}",
    )
    parser.option(
        "--with-input",
        env="PGFLOW_WITH_INPUT",
        flag=True,
        default=False,
        help="of each item of a map an object of index, status, input, output and error, also while it runs "
        "and where it failed",
    )
    parser.option(
        "--failed",
        env="PGFLOW_FAILED",
        flag=True,
        default=False,
        help="only the items that failed: index, status, attempts, error",
    )
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Write what is asked for. Raises InputError for what is not there (yet)."""
    from pgflow_mp.cli.output import stdout_for_results
    from pgflow_mp.db.reads.records import iter_records

    format = check_place("--output", args.output, args.format, "--format")
    records = args.with_input or args.failed
    words = [args.run, *([args.step] if args.step else [])]
    with (
        stdout_for_results() as results,
        open_run(database_choice(args), args.run, writes=False) as (database, conn, run),
    ):
        again = command("results", *words, *database.options, "--output", "FILE")
        hint = f"It stays in the database: {again}"
        if args.step is None and format == "json" and not records:
            _check_completed(run.status, f"Run {run.run_id}", "Name a step of it that is completed.")
            write_asked(conn, run.run_id, Asked("--output", args.output, format, None), results, hint)
            return OK
        step = _step(conn, run, args.step)
        is_map = step.step_type == "map"
        chosen = format or ("jsonl" if is_map or records else "json")
        asked = Asked("--output", args.output, chosen, step.step_slug, is_map)
        if records:
            found = iter_records(conn, run.run_id, step.step_slug, failed=args.failed, inputs=args.with_input)
            count = write_elements(asked, found, results, hint)
            if args.output != "-":
                from pgflow_mp.observe.text import plural

                print(f"{plural(count, 'item')} of {step.step_slug} in {args.output}", file=sys.stderr)
            return OK
        advice = (
            f"What there is of its items: {command('results', run.run_id, step.step_slug, '--with-input')}"
        )
        _check_completed(step.status, f'Step "{step.step_slug}" of run {run.run_id}', advice)
        write_asked(conn, run.run_id, asked, results, hint)
    return OK


def _check_completed(status: str, what: str, hint: str) -> None:
    if status != "completed":
        raise InputError(f"{what} is {status}: its output is not there; nothing was written", hint=hint)


def _step(conn: Connection, run: RunRow, slug: str | None) -> StepRow:
    """The step that is named, or the one that the run ends in."""
    from pgflow_mp.db.reads import documents, runs

    found = runs.run_view(conn, run.run_id)
    steps = {step.step_slug: step for step in (found[1] if found else [])}
    names = ", ".join(steps)
    if slug is None:
        leaves = [leaf.step_slug for leaf in documents.leaves(conn, run.run_id)]
        if len(leaves) != 1:
            raise InputError(
                f"Which step of run {run.run_id}? It has {len(leaves)} last steps that are completed",
                hint=f"Name one, {names}, or write the whole output: --format json.",
            )
        slug = leaves[0]
    if slug not in steps:
        raise FlowNotFound(f'Flow "{run.flow_slug}" has no step "{slug}"', hint=f"Its steps are {names}.")
    return steps[slug]
