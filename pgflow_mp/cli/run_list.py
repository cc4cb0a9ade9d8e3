"""runs: the runs of a database, newest first, page by page, by flow, status, time, tag and key."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.output import encoded
from pgflow_mp.cli.parser import Parser, add_database, add_json, command
from pgflow_mp.cli.tag_options import add_tags

if TYPE_CHECKING:
    from pgflow_mp.observe.run_reports import RunReport, RunState

_STATES: Final = (
    "queued",
    "running",
    "waiting",
    "paused",
    "completed",
    "completed-with-failures",
    "failed",
    "cancelled",
)
_SETS: Final = {"open": _STATES[:4], "ended": _STATES[4:]}


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} [OPTIONS]"
    parser.description = "List runs, newest first: of a flow, in a state, of a time, with a tag or a key."
    parser.option("--flow", env="PGFLOW_FLOW", metavar="SLUG", help="only runs of this flow")
    parser.option(
        "--status",
        env="PGFLOW_STATUS",
        metavar="STATUS",
        convert=_states,
        help=f"only runs that are so, several with commas: {', '.join(_STATES)}; open, ended",
    )
    parser.option(
        "--since",
        env="PGFLOW_SINCE",
        metavar="WHEN",
        convert=converters.moment,
        help="only runs that were started then or later: 2h, 3d (ago), 2026-11-26, 2026-11-26T14:30",
    )
    parser.option(
        "--until",
        env="PGFLOW_UNTIL",
        metavar="WHEN",
        convert=converters.moment,
        help="only runs that were started before that",
    )
    add_tags(parser, "only runs with this tag; several times: with all of them")
    parser.option("--key", env="PGFLOW_KEY", metavar="NAME", help="only the run with this key, of each flow")
    parser.option(
        "--limit",
        env="PGFLOW_LIMIT",
        metavar="N",
        default=20,
        convert=converters.count,
        help="how many runs to show (20)",
    )
    parser.option(
        "--before",
        env="PGFLOW_BEFORE",
        metavar="RUN_ID",
        help="only runs that were started before this one: the next page",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Print a page of them."""
    from pgflow_mp.cli.connecting import never_used, open_database
    from pgflow_mp.cli.known_runs import check_flow_asked, find_run
    from pgflow_mp.cli.tag_options import tag_choice
    from pgflow_mp.observe.read_reports import read_runs

    choice, tags = database_choice(args), tag_choice(args.tag)
    if never_used(choice):
        check_flow_asked(None, args.flow)
        nothing = f"No runs yet. Start one: {command('run', 'simple', *choice.options)}"
        print('{"runs":[],"next":null}' if args.json else nothing)
        return 0
    with open_database(choice, writes=False) as database, database.connect() as conn:
        check_flow_asked(conn, args.flow)
        behind = None
        if args.before is not None:
            last = find_run(conn, args.before, database.options)
            behind = (last.started_at, str(last.run_id))
        found = read_runs(
            conn,
            min(args.limit, 2**31 - 2) + 1,
            flow=args.flow,
            states=args.status,
            since=args.since,
            until=args.until,
            tags=tags,
            key=args.key,
            before=behind,
        )
        shown, more = found[: args.limit], len(found) > args.limit
        if args.json:
            print(encoded({"runs": shown, "next": shown[-1].run_id if more else None}))
        else:
            asked = ("flow", "status", "since", "until", "tag", "key", "before")
            which = "No such runs" if any(getattr(args, name) for name in asked) else "No runs"
            _print(shown, f"{which} in {database.place}.", more=more)
    return 0


def _print(shown: list[RunReport], nothing: str, *, more: bool) -> None:
    from pgflow_mp.cli.run_table import print_runs

    if not shown:
        print(nothing)
        return
    print_runs(shown)
    if more:
        print(f"\nThere are more; add --before {shown[-1].run_id[:13]}")


def _states(text: str) -> list[RunState]:
    """The states that are named, with commas between them."""
    found: list[RunState] = []
    for part in text.replace(" ", "").lower().replace("_", "-").split(","):
        names = _SETS.get(part, (part,))
        if part not in _SETS and part not in _STATES:
            raise argparse.ArgumentTypeError(f"{part!r} is not one of {', '.join(_STATES)}, open and ended")
        found += [name.replace("-", "_") for name in names]  # type: ignore[misc]
    return found
