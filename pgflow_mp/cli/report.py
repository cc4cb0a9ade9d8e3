"""report: all that there is to tell of a run, as one HTML file to mail."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pgflow_mp.cli.asked import check_writable
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.converters import output_file
from pgflow_mp.cli.known_runs import open_run
from pgflow_mp.cli.parser import Parser, UsageError, add_database, command
from pgflow_mp.errors import RunNotFound


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} RUN_ID --output FILE.html [OPTIONS]"
    parser.description = (
        "Write the report of a run, of whatever state: its steps, what lanes did when, item times, what\n"
        "failed, options and environment. It is one HTML file that needs nothing else: to mail, to print."
    )
    parser.add_argument("run", metavar="RUN_ID", help="the run's id, or how it begins")
    parser.option(
        "--output",
        "-o",
        env="PGFLOW_OUTPUT",
        convert=output_file,
        metavar="FILE",
        help="where to; what is there is replaced once the report is whole; - is standard output",
    )
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Write it. Raises UsageError where nothing says where to, InputError for a file that cannot be."""
    output = args.output
    if output is None:
        if sys.stdout is None or sys.stdout.isatty():
            raise UsageError(
                "A report is HTML, which a terminal does not show",
                hint=f"Name a file: {command('report', args.run, '--output', 'report.html')}",
            )
        output = "-"
    check_writable("--output", output)
    from pgflow_mp.observe.run_html import gather, write

    with open_run(database_choice(args), args.run, writes=False) as (database, conn, run):
        document = gather(conn, run.run_id, database.place)
        if document is None:
            raise RunNotFound(f"Run {run.run_id} has been removed in the meantime")
    page = write(document).encode("utf-8")
    if output == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(page)
        sys.stdout.buffer.flush()
        return OK
    from pgflow_mp.io.atomic import write_atomically
    from pgflow_mp.observe.text import size

    with write_atomically(Path(output)) as file:
        file.write(page)
    print(f"Wrote {output}: run {run.run_id}, {size(len(page))}.", file=sys.stderr)
    return OK
