"""install, migrate, compile: the schema of a database, and flows as SQL."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pgflow_mp.cli.command_line import DatabaseChoice, database_choice
from pgflow_mp.cli.converters import output_file
from pgflow_mp.cli.flow_targets import add_handlers, flow_target
from pgflow_mp.cli.output import stdout_for_results
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command

if TYPE_CHECKING:
    from pgflow_mp.db.schema import InstallResult
    from pgflow_mp.flows.options import Storage

_ABOUT = {
    "install": "Install the pgflow schema into a database, or upgrade it there. Safe to repeat.\n"
    "The embedded server needs no installation: it gets the schema by itself.",
    "migrate": "Upgrade the pgflow schema of a database to the version of this package.\n"
    "A database without the schema is left alone; one that is newer is refused.",
    "compile": "Print the SQL that creates a flow, for migrations that are applied by hand.\n"
    "The flow is imported here; no database is needed.",
}


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.description = _ABOUT[verb]
    parser.usage = f"{parser.prog} [OPTIONS]"
    if verb == "compile":
        parser.usage = f"{parser.prog} TARGET [--output FILE]"
        parser.add_argument(
            "target", metavar="TARGET", help="module:flow, path.py:flow, a flow file, or an example"
        )
        parser.option(
            "--output",
            "-o",
            env="PGFLOW_OUTPUT",
            convert=output_file,
            metavar="FILE",
            help="write it to FILE",
        )
        add_handlers(parser)
        return
    parser.option(
        "--print",
        env="PGFLOW_PRINT",
        flag=True,
        default=False,
        help="print the whole installation as a script for psql, and touch nothing",
    )
    parser.option(
        "--with-queue",
        env="PGFLOW_WITH_QUEUE",
        flag=True,
        default=False,
        help="with --print: take the bundled SQL of pgmq where the server offers that extension, too",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.verb == "compile":
        _compile(args.target, args.handlers, args.output)
        return 0
    if args.print:
        from pgflow_mp.db import schema

        _write(schema.sql_text(bundled_queue=args.with_queue) + "\n")
        return 0
    result, place = _install(database_choice(args), migrates=args.verb == "migrate")
    if args.json:
        told = {"before": result.before, "version": result.after, "changed": result.changed}
        print(json.dumps({**told, "database": place}))
    else:
        print(_in_words(result, place))
    return 0


def _write(sql: str) -> None:
    """SQL for standard output is UTF-8, as in a file, whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(sql.encode())
    sys.stdout.buffer.flush()


def _install(choice: DatabaseChoice, *, migrates: bool) -> tuple[InstallResult, str]:
    """Install or upgrade the schema; what that did, and where."""
    from pgflow_mp.cli.connecting import connect, describe, named_dsn, open_database
    from pgflow_mp.db import schema
    from pgflow_mp.db.fitness import check_writable

    dsn = named_dsn(choice)
    if dsn is None:
        with open_database(choice) as database, database.connect() as conn:
            found = schema.installed(conn)
        version = found.version if found else 0
        return schema.InstallResult(version, version, False, "unchanged"), database.place
    place = describe(dsn)
    with connect(dsn, choice) as conn:
        check_writable(conn)
        if migrates and schema.installed(conn) is None:
            raise UsageError(
                f"{place} has no pgflow schema to migrate",
                hint=f"Install it: {command('install', *choice.options)}",
            )
        result = schema.install(conn)
    return result, place


def _in_words(result: InstallResult, place: str) -> str:
    before, after, changed, queue = result
    if not changed:
        return f"Up to date: pgflow schema version {after} ({place})."
    if not before:
        return f"Installed pgflow schema version {after} ({place})."
    if queue != "present":
        return f"Added the queue, which was missing, to pgflow schema version {after} ({place})."
    if before == after:
        return f"Renewed the functions of pgflow schema version {after} ({place})."
    return f"Upgraded the pgflow schema from version {before} to {after} ({place})."


def _compile(target: str, handlers: Sequence[str], output: str | None) -> None:
    from pgflow_mp.flows.shapes import to_sql
    from pgflow_mp.flows.storage import when_new
    from pgflow_mp.loading import finding

    with stdout_for_results():  # what modules print is no SQL
        flows = finding.load_flows(flow_target(target, handlers))
    text = "\n".join(to_sql(flow, whole=True) + _remark(when_new(flow)) for flow in flows)
    if output is None or output == "-":
        _write(text)
        return
    from pgflow_mp.io.atomic import write_atomically

    with write_atomically(Path(output)) as file:
        file.write(text.encode())
    names = ", ".join(flow.slug for flow in flows)
    print(f"Wrote {output}: {names}.", file=sys.stderr)


def _remark(storages: dict[str, Storage]) -> str:
    """A comment about the maps that only workers of ours can work on."""
    slugs = [f'"{slug}"' for slug, storage in storages.items() if storage == "ranges"]
    if not slugs:
        return ""
    return (
        f"-- In ranges: {', '.join(slugs)}. Workers of pgflow in other languages get none of their items;\n"
        '-- for maps that are shared with them, say storage="tasks" in the code.\n'
    )
