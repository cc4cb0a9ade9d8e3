"""results: what a run has computed, into a file, a table, or to standard output."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Generator, Iterator
from typing import IO, TYPE_CHECKING

from pgflow_mp.cli.asked import Asked, check_place, elements_of, write_asked, write_elements
from pgflow_mp.cli.command_line import database_choice, table_target, wanted_items
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.converters import output_file
from pgflow_mp.cli.known_runs import no_step, open_run
from pgflow_mp.cli.parser import Parser, add_database, command
from pgflow_mp.cli.wanted_items import WantedItems, add_wanted, tell_unmet
from pgflow_mp.errors import InputError
from pgflow_mp.io.sinks import FORMATS

if TYPE_CHECKING:
    from pgflow_mp.cli.connecting import OpenDatabase
    from pgflow_mp.cli.into import TableTarget
    from pgflow_mp.db.engine import Connection, RunRow
    from pgflow_mp.db.reads.runs import StepRow


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} RUN_ID [STEP] [--output FILE] [OPTIONS]"
    parser.description = (
        "Write the results of a step, or the output of a run, in index order, whenever it was computed; or, "
        "with --follow, as it is computed."
    )
    parser.add_argument("run", metavar="RUN_ID", help="the run's id, or how it begins")
    parser.add_argument(
        "step", nargs="?", metavar="STEP", help="the step's slug; without it the run's last one"
    )
    parser.option(
        "--output",
        "-o",
        env="PGFLOW_OUTPUT",
        convert=output_file,
        default="-",
        metavar="FILE",
        help="where to: .json, .jsonl, .csv or .parquet, or .jsonl.gz and the like; - is standard output, "
        "which is the default",
    )
    parser.option(
        "--format",
        env="PGFLOW_OUTPUT_FORMAT",
        choices=FORMATS,
        metavar="FORMAT",
        help=f"how it is to be written, whatever the file's ending: {', '.join(FORMATS)}",
    )
    parser.option(
        "--into",
        env="PGFLOW_INTO",
        metavar="TABLE",
        help="rows into a table of any PostgreSQL instead, all of them or none: "
        "postgresql://user@host/database#rows; #rows is in the run's database. Made if it is missing",
    )
    add_wanted(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Write what is asked for. Raises InputError for what is not there (yet)."""
    from pgflow_mp.cli.output import stdout_for_results

    wanted = wanted_items(args)
    table = table_target(args)
    format = None if table else check_place("--output", args.output, args.format, "--format")
    if wanted.follow and format not in (None, "jsonl"):
        raise InputError(
            f"--follow writes items as they end, a line each: nothing can be {format} before its end",
            hint="Write .jsonl, or leave --follow out and ask for the file when the step is done.",
        )
    words = [args.run, *([args.step] if args.step else [])]
    with (
        stdout_for_results() as results,
        open_run(database_choice(args), args.run, writes=False) as (database, conn, run),
    ):
        again = command("results", *words, *database.options, "--output", "FILE")
        hint = f"It stays in the database: {again}"
        if args.step is None and format == "json" and not wanted.any and table is None:
            parts = command("results", run.run_id, "STEP", *database.options)
            advice = f"Name a step of it that is completed: {parts}"
            _check_completed(run.status, f"Run {run.run_id}", advice)
            write_asked(conn, run.run_id, Asked("--output", args.output, format, None), results, hint)
            return OK
        step = _step(conn, run, args.step, follow=wanted.follow)
        is_map = step.step_type == "map"
        chosen = format or ("jsonl" if is_map or wanted.any or wanted.follow else "json")
        asked = Asked("--output", args.output, chosen, step.step_slug, is_map)
        if wanted.follow:
            from pgflow_mp.cli.follow import follow

            return follow(database, run.run_id, asked, wanted, results)
        if not wanted.at_any_time:
            advice = command("results", run.run_id, step.step_slug, "--with-input", *database.options)
            _check_completed(
                step.status,
                f'Step "{step.step_slug}" of run {run.run_id}',
                f"What there is of its items: {advice}",
            )
        if table is not None:
            _write_table(database, conn, run, step, asked, table, wanted)
        elif wanted.any:
            _write_items(conn, run, step, asked, wanted, results, hint)
        else:
            write_asked(conn, run.run_id, asked, results, hint)
    return OK


def _write_items(
    conn: Connection,
    run: RunRow,
    step: StepRow,
    asked: Asked,
    wanted: WantedItems,
    results: IO[str],
    hint: str,
) -> None:
    from pgflow_mp.cli.bars import counted
    from pgflow_mp.observe.text import plural

    total = step.initial_tasks if wanted.statuses is None else None
    with contextlib.closing(_wanted_elements(conn, run, step, wanted)) as found:
        elements = counted(found, total, step.step_slug, shows=asked.is_seen_apart(results))
        count = write_elements(asked, elements, results, hint)
    if asked.name != "-":
        print(f"{plural(count, 'item')} of {step.step_slug} in {asked.name}", file=sys.stderr)
    tell_unmet(wanted, count)


def _wanted_elements(
    conn: Connection, run: RunRow, step: StepRow, wanted: WantedItems
) -> Generator[bytes, None, None]:
    """To be closed before the connection: it is one transaction."""
    from pgflow_mp.db.reads.records import iter_records

    with contextlib.closing(
        iter_records(conn, run.run_id, step.step_slug, inputs=wanted.needs_input, statuses=wanted.statuses)
    ) as found:
        yield from map(wanted.write, found)


def _write_table(
    database: OpenDatabase,
    conn: Connection,
    run: RunRow,
    step: StepRow,
    asked: Asked,
    target: TableTarget,
    wanted: WantedItems,
) -> None:
    from pgflow_mp.cli.bars import counted
    from pgflow_mp.cli.connecting import describe
    from pgflow_mp.observe.text import plural

    count = 0
    elements: Iterator[bytes]
    with (
        target.open(database.dsn, describe(target.dsn or database.dsn)) as table,
        contextlib.ExitStack() as ending,
    ):
        if wanted.any:
            elements = ending.enter_context(contextlib.closing(_wanted_elements(conn, run, step, wanted)))
        else:
            elements = elements_of(conn, run.run_id, asked)
        total = step.initial_tasks if wanted.statuses is None else None
        for element in counted(elements, total, step.step_slug):
            table.sink.write(element)
            count += 1
        table.sink.finish()
    print(f"{plural(count, 'item')} of {step.step_slug} in table {table.name}", file=sys.stderr)
    tell_unmet(wanted, count)


def _check_completed(status: str, what: str, hint: str) -> None:
    if status != "completed":
        raise InputError(f"{what} is {status}: its output is not there, and nothing was written", hint=hint)


def _step(conn: Connection, run: RunRow, slug: str | None, *, follow: bool) -> StepRow:
    """The step that is named, or the one that the run ends in; to ``follow`` the only one."""
    from pgflow_mp.db.reads import documents, runs

    found = runs.run_view(conn, run.run_id)
    steps = {step.step_slug: step for step in (found[1] if found else [])}
    names = ", ".join(steps)
    if slug is None:
        leaves = [leaf.step_slug for leaf in documents.leaves(conn, run.run_id)]
        if follow:
            leaves = list(steps)
            if len(leaves) != 1:
                raise InputError(
                    f"Which step of run {run.run_id} is to be followed?", hint=f"Name one: {names}."
                )
        if not leaves:
            _check_completed(run.status, f"Run {run.run_id}", f"Name a step of it: {names}.")
        if len(leaves) != 1:
            raise InputError(
                f"Which step of run {run.run_id}? It has {len(leaves)} last steps that are completed",
                hint=f"Name one, {names}, or write the whole output: --format json.",
            )
        slug = leaves[0]
    if slug not in steps:
        raise no_step(run, slug, steps)
    return steps[slug]
