"""db: the address of the database that commands use, a psql in it, its size."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli.command_line import DatabaseChoice, database_choice
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command

if TYPE_CHECKING:
    from pgflow_mp.cli.connecting import OpenDatabase

_WHAT: Final = ("dsn", "psql", "size")
_SHOWN: Final = 12
"""Tables in the text."""
_FEW_DEAD: Final = 1000


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} {{{'|'.join(_WHAT)}}} [OPTIONS] [-- ARGUMENT ...]"
    parser.description = (
        "dsn prints the connection string of the database that commands use here; psql opens it, with "
        "what follows -- as psql's arguments; size tells what takes how much room in it."
    )
    parser.add_argument("what", metavar="|".join(_WHAT), choices=_WHAT, help="what is wanted")
    parser.passes_on = "arguments"
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Do it; psql's own exit status."""
    from pgflow_mp.cli.connecting import open_database

    choice = database_choice(args)
    if args.arguments and args.what != "psql":
        raise UsageError(f"db {args.what} takes no further arguments", hint=f"See {command('db', '--help')}.")
    with open_database(choice, check=args.what == "size", writes=False) as database:
        if args.what == "psql":
            return _psql(database, args.arguments)
        if args.what == "size":
            _print_sizes(database, as_json=args.json)
        else:
            _print_dsn(database, choice, as_json=args.json)
    return 0


def _print_dsn(database: OpenDatabase, choice: DatabaseChoice, *, as_json: bool) -> None:
    embedded = database.server is not None
    print(json.dumps({"dsn": database.dsn, "embedded": embedded}) if as_json else database.dsn)
    if embedded:
        sys.stdout.flush()
        print(
            "This server runs while a command of pgflow_mp uses it; "
            f"{command('db', 'psql', *choice.options)} keeps it running.",
            file=sys.stderr,
        )


def _psql(database: OpenDatabase, arguments: list[str]) -> int:
    """Ctrl-C is psql's; a password is not among the arguments, which others can see."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    parameters = {name: str(value) for name, value in conninfo_to_dict(database.dsn).items()}
    environment = dict(os.environ)
    if password := parameters.pop("password", ""):
        environment["PGPASSWORD"] = password
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.call(
            [_program(database), make_conninfo("", **parameters), *arguments],
            env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    finally:
        signal.signal(signal.SIGINT, before)


def _program(database: OpenDatabase) -> str:
    """psql of the path, else the one that comes with the embedded server."""
    from pgflow_mp.embedded.binaries import bundled_bin_dir

    if database.server is None and (found := shutil.which("psql")):
        return found
    return str(bundled_bin_dir() / "psql")


def _print_sizes(database: OpenDatabase, *, as_json: bool) -> None:
    import msgspec

    from pgflow_mp.db.reads.sizes import database_size
    from pgflow_mp.observe.text import plural, size

    with database.connect() as conn:
        found = database_size(conn)
    if as_json:
        print(json.dumps({"database": database.place, **msgspec.to_builtins(found)}))
        return
    print(f"{database.place}: {size(found.total_bytes)}, {size(found.ours_bytes)} of it runs and queues")
    for table in found.tables[:_SHOWN]:
        is_bloated = table.dead_rows > max(_FEW_DEAD, table.rows)
        dead = f", {table.dead_rows:,} dead" if is_bloated else ""
        print(f"  {size(table.bytes):>8}  {table.name} ({plural(table.rows, 'row')}{dead})")
    if found.ended_runs:
        print(
            f"Ended, and still there: {plural(found.ended_runs, 'run')}, "
            f"the first {found.oldest_days:.0f} days ago. "
            f"To remove old ones: {command('prune', '--keep', '30d', *database.options)}"
        )
