"""Opening the database for a command that is about one run which exists already."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.cli.options import command
from pgflow_mp.errors import RunNotFound

if TYPE_CHECKING:
    import psycopg

    from pgflow_mp.cli.connecting import Database
    from pgflow_mp.db.engine import RunRow

_FOR_GOOD: Final = ("InputMismatch: ", "OutputError: ", "pgflow_mp.errors.PermanentError")
"""How errors begin that come again as long as the code and what it looks at stay as they are."""


def resume_command(flow: str | None, run_id: str, *words: str) -> str:
    """The command that goes on with a run; FLOW stands for a target that nobody has named."""
    return command("run", flow or "FLOW", "--resume", run_id, *words)


def retry_advice(errors: Iterable[str], unmet: str | None) -> str:
    """The words before the command that tries a failed run again; nothing where it cannot help.

    ``errors`` are those of its failed items, ``unmet`` the step whose condition was not met: what that is
    compared with is recorded for good.
    """
    if unmet is not None:
        return ""
    known = [error.startswith(_FOR_GOOD) for error in errors]
    return "After a correction, try what failed again" if known and all(known) else "Try what failed again"


@contextlib.contextmanager
def open_run(
    args: argparse.Namespace, *, writes: bool = True
) -> Iterator[tuple[Database, psycopg.Connection[tuple[Any, ...]], RunRow]]:
    """The database, a connection to it, and the run that ``args.run`` names by its id or how it begins.

    Raises RunNotFound, also where no embedded database was ever made; none is made for the question.
    """
    from pgflow_mp.cli.connecting import named_dsn, open_database
    from pgflow_mp.cli.status import find_run
    from pgflow_mp.embedded.server import EmbeddedServer

    if named_dsn(args) is None and not EmbeddedServer(args.data_dir).data_dir.exists():
        raise RunNotFound(
            f"There is no run {args.run}: no run was ever started here",
            hint=f"Name the database with --dsn or --data-dir, or start a run: {command('run', 'simple')}",
        )
    with open_database(args, writes=writes) as database, database.connect() as conn:
        yield database, conn, find_run(conn, args.run)
