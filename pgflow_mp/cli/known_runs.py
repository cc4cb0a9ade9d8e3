"""For commands about a run that exists: finding it, opening its database, saying what can be done with it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.cli.parser import command
from pgflow_mp.errors import FlowNotFound, PgflowError, RunNotFound

if TYPE_CHECKING:
    import psycopg

    from pgflow_mp.cli.command_line import DatabaseChoice
    from pgflow_mp.cli.connecting import OpenDatabase
    from pgflow_mp.db.engine import RunRow

_FOR_GOOD: Final = ("InputMismatch: ", "OutputError: ", "pgflow_mp.errors.PermanentError")
"""How errors begin that come again as long as the code and what it looks at stay as they are."""
_ID: Final = re.compile(r"[0-9a-fA-F-]+")


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


def find_run(conn: psycopg.Connection[tuple[Any, ...]], text: str, options: Iterable[str] = ()) -> RunRow:
    """The run with this id, or the only one whose id begins so. Raises RunNotFound.

    ``options`` name the database in the command that it advises.
    """
    from pgflow_mp.db.reads import runs

    return runs.the_run(conn, text, hint=f"List the runs: {command('status', *options)}")


def run_or_none(
    conn: psycopg.Connection[tuple[Any, ...]], what: str, options: Iterable[str]
) -> RunRow | None:
    """The run whose id begins so, if any does; what looks like an id may be a flow's slug, too."""
    if not _ID.fullmatch(what):
        return None
    try:
        return find_run(conn, what, options)
    except RunNotFound as error:
        if "several" in str(error) or "-" in what or not what[:1].isalpha():
            raise
        return None


def not_here(run: RunRow, slugs: Iterable[str], hint: str = "") -> FlowNotFound:
    """The error about a run whose flow is not among those that were loaded."""
    return FlowNotFound(
        f'Run {run.run_id} is one of flow "{run.flow_slug}", not of {", ".join(map(_quoted, slugs))}',
        hint=hint,
    )


def _quoted(slug: str) -> str:
    return f'"{slug}"'


def no_step(run: RunRow, slug: str, known: Iterable[str]) -> FlowNotFound:
    """The error about a step that a run does not have."""
    return FlowNotFound(
        f'Step "{slug}" does not exist in flow "{run.flow_slug}"', hint=f"Its steps are {', '.join(known)}."
    )


def none_here(run: str, choice: DatabaseChoice) -> RunNotFound:
    """The error about a run where no embedded database was ever made."""
    first = command("run", "simple", *choice.options)
    return RunNotFound(
        f"There is no run {run}: no run was ever started here",
        hint=f"Name the database with --dsn or --data-dir, or start a run: {first}",
    )


def never_started(kind: type[PgflowError], what: str) -> PgflowError:
    """The error about a flow, or something else, where no embedded database was ever made."""
    return kind(
        f"There is no {what}: nothing was ever started here",
        hint="Name the database with --dsn or --data-dir.",
    )


def check_flow_asked(conn: psycopg.Connection[tuple[Any, ...]] | None, slug: str | None) -> None:
    """Raise FlowNotFound for a flow that was named (--flow) and is not there; no connection: nothing is."""
    from pgflow_mp.db.reads.runs import check_flow

    if slug is None:
        return
    if conn is None:
        raise never_started(FlowNotFound, f'flow "{slug}"')
    check_flow(conn, slug)


def ended_already(conn: psycopg.Connection[tuple[Any, ...]], run: RunRow) -> str:
    """What is said of a run that has ended where one that goes on was wanted."""
    from pgflow_mp.observe.read_reports import read_run

    found = read_run(conn, run.run_id)
    was_cancelled = found is not None and found.state == "cancelled"
    how = "been cancelled" if was_cancelled else run.status
    return f"Run {run.run_id} of {run.flow_slug} has {how} already; nothing was changed."


def neither(what: str, options: Iterable[str]) -> FlowNotFound:
    """The error about a word that is neither the id of a run nor the slug of a flow."""
    return FlowNotFound(
        f"There is no flow, and no run, {what!r} in this database",
        hint=f"List the runs and their flows: {command('status', *options)}",
    )


@contextlib.contextmanager
def open_run(
    choice: DatabaseChoice, run: str, *, writes: bool = True
) -> Iterator[tuple[OpenDatabase, psycopg.Connection[tuple[Any, ...]], RunRow]]:
    """The database, a connection to it, and the ``run`` that is named by its id or how it begins.

    Raises RunNotFound, also where no embedded database was ever made; none is made for the question.
    """
    from pgflow_mp.cli.connecting import never_used, open_database

    if never_used(choice):
        raise none_here(run, choice)
    with open_database(choice, writes=writes) as database, database.connect() as conn:
        yield database, conn, find_run(conn, run, database.options)
