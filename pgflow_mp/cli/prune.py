"""prune: runs that ended long ago are removed, with all that belongs to them."""

from __future__ import annotations

import argparse
import json
import logging
import time
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.known_runs import check_flow_asked
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command

if TYPE_CHECKING:
    from pgflow_mp.db.engine import Connection

_TELL_EVERY: Final = 5.0  # seconds

logger = logging.getLogger("pgflow_mp")


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} --keep AGE [--flow SLUG] [OPTIONS]"
    parser.description = (
        "Remove runs that ended longer ago than AGE, with their items, results and messages, a short\n"
        "transaction at a time: workers go on meanwhile, and what is interrupted can be gone on with."
    )
    parser.option(
        "--keep",
        env="PGFLOW_KEEP",
        metavar="AGE",
        convert=converters.age,
        help="how long a run is kept once it has ended: 30d, 12h, 2w",
    )
    parser.option("--flow", env="PGFLOW_FLOW", metavar="SLUG", help="only runs of this flow")
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Remove them, and say how many there were."""
    from pgflow_mp.cli.connecting import beside, never_used, open_database
    from pgflow_mp.observe.text import plural
    from pgflow_mp.worker.artifact_removal import Removal, remove_leftovers, unreachable_text

    if args.keep is None:
        raise UsageError(
            "How long are runs to be kept?", hint=f"For example: {command('prune', '--keep', '30d')}"
        )
    choice, runs, rows, files = database_choice(args), 0, 0, Removal()
    if never_used(choice):
        check_flow_asked(None, args.flow)
    else:
        with open_database(choice) as database, database.connect() as conn:
            check_flow_asked(conn, args.flow)
            flows = None if args.flow is None else [args.flow]
            runs, rows = _prune(conn, args.keep, flows)
            files = remove_leftovers(conn, flows, beside(database.server))
    for place, reason in files.unreachable.items():
        logger.warning("%s", unreachable_text(place, reason))
    removed = files.removed
    if args.json:
        made = {"artifacts": removed.files, "artifact_bytes": removed.size} if removed.files else {}
        left = {"unreachable": list(files.unreachable)} if files.unreachable else {}
        print(json.dumps({"runs": runs, "rows": rows, **made, **left}))
        return OK
    print(
        f"Removed {plural(runs, 'run')}"
        + (f", with {plural(rows, 'row')} of items and pages." if rows else ".")
    )
    if removed.files:
        print(
            f"Removed {plural(removed.files, 'artifact')} of {plural(removed.runs, 'run')}"
            f" ({removed.size:,} bytes)."
        )
    return OK


def _prune(conn: Connection, keep: float, flows: list[str] | None) -> tuple[int, int]:
    from pgflow_mp.db.pruning import Pruned, prune

    tell = time.monotonic() + _TELL_EVERY

    def progress(so_far: Pruned) -> None:
        nonlocal tell
        if time.monotonic() > tell:
            logger.info("removed %s runs and %s rows so far", f"{so_far.runs:,}", f"{so_far.rows:,}")
            tell = time.monotonic() + _TELL_EVERY

    done = prune(conn, keep, flows, progress=progress)
    return done.runs, done.rows
