"""pause, resume: of a flow or a run nothing new is worked on, until it is resumed."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK, RUN_FAILED
from pgflow_mp.cli.known_runs import ended_already, neither, never_started, run_or_none
from pgflow_mp.cli.parser import Parser, add_database, add_json, command
from pgflow_mp.errors import FlowNotFound, InputError, RunNotFound

if TYPE_CHECKING:
    from pgflow_mp.db.engine import Connection, RunRow
    from pgflow_mp.db.pausing import Pause


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    if verb == "pause":
        parser.usage = f"{parser.prog} RUN_ID|FLOW [--for TIME] [OPTIONS]"
        parser.description = (
            "Let workers claim nothing more of a run, or of a flow with all its runs. What is being worked\n"
            "on ends and is recorded; runs can still be started, and wait (resume)."
        )
        parser.option(
            "--for",
            env="PGFLOW_FOR",
            metavar="TIME",
            convert=converters.pause,
            help="how long, 10m, 2h, 1d; without it until they are resumed",
        )
        parser.option("--reason", env="PGFLOW_REASON", metavar="TEXT", help="why, for whoever asks")
    else:
        parser.usage = f"{parser.prog} RUN_ID|FLOW [OPTIONS]"
        parser.description = "Let workers go on with a run, or a flow, that was paused (pause)."
    parser.add_argument(
        "what", metavar="RUN_ID|FLOW", help="the run's id, or how it begins; or the slug of a flow"
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Pause or resume; 1 for a run that had ended."""
    from pgflow_mp.cli.connecting import never_used, open_database

    what, choice = args.what.strip(), database_choice(args)
    reason = args.reason if args.verb == "pause" else None
    lasts = getattr(args, "for") if args.verb == "pause" else None
    if "\0" in what + (reason or ""):
        raise InputError("RUN_ID|FLOW and --reason must not contain a NUL character")
    if never_used(choice):
        raise never_started(RunNotFound, f"flow or run {what!r}")
    with open_database(choice, writes=True) as database, database.connect() as conn:
        wanted = _Wanted(args.verb == "pause", reason, lasts, args.json, database.options)
        run = run_or_none(conn, what, database.options)
        return _of_flow(wanted, conn, what) if run is None else _of_run(wanted, conn, run)


class _Wanted(NamedTuple):
    """What is to be done: pause (``lasts`` so long) or resume; ``options`` name the database."""

    pause: bool
    reason: str | None
    lasts: timedelta | None
    json: bool
    options: list[str]


def _of_run(wanted: _Wanted, conn: Connection, run: RunRow) -> int:
    from pgflow_mp.db import pausing

    run_id, ended, changed = str(run.run_id), run.status != "started", False
    if not ended and wanted.pause:
        changed = pausing.pause_run(conn, run_id, wanted.reason, wanted.lasts)
    elif not ended:
        changed = pausing.resume_run(conn, run_id)
    pauses = [p for p in pausing.list_pauses(conn) if p.flow_slug == run.flow_slug]
    flow_too = any(p.run_id is None for p in pauses)
    if wanted.json:
        holding = [] if ended else [p for p in pauses if p.run_id is None or str(p.run_id) == run_id]
        told = {"flow": run.flow_slug, "run_id": run_id, "status": run.status}
        print(json.dumps({**told, **_state(holding), "changed": changed}))
    elif ended:
        print(ended_already(conn, run))
    else:
        _tell(wanted, f"run {run_id} of {run.flow_slug}", run_id, changed)
        if not wanted.pause and flow_too:
            further = command("resume", run.flow_slug, *wanted.options)
            print(f"Its flow is paused, too. Go on with that: {further}")
    return RUN_FAILED if ended else OK


def _of_flow(wanted: _Wanted, conn: Connection, slug: str) -> int:
    from pgflow_mp.db import pausing
    from pgflow_mp.observe.text import plural

    try:
        if wanted.pause:
            changed = pausing.pause_flow(conn, slug, wanted.reason, wanted.lasts)
        else:
            changed = pausing.resume_flow(conn, slug)
    except FlowNotFound:
        raise neither(slug, wanted.options) from None
    if wanted.json:
        holding = [p for p in pausing.list_pauses(conn) if p.flow_slug == slug and p.run_id is None]
        told = {"flow": slug, "run_id": None, "status": None}
        print(json.dumps({**told, **_state(holding), "changed": changed}))
        return OK
    _tell(wanted, f"flow {slug}", slug, changed)
    left = sum(p.flow_slug == slug and p.run_id is not None for p in pausing.list_pauses(conn))
    if left and not wanted.pause:
        print(f"{plural(left, 'run')} of it stay{'s' if left == 1 else ''} paused.")
    return OK


def _state(holding: list[Pause]) -> dict[str, Any]:
    """Whether any of these pauses holds it, and until when; null: somebody has to resume it."""
    ends = [pause.until for pause in holding if pause.until is not None]
    by_itself = bool(holding) and len(ends) == len(holding)
    return {"paused": bool(holding), "until": max(ends).astimezone(UTC).isoformat() if by_itself else None}


def _tell(wanted: _Wanted, name: str, word: str, changed: bool) -> None:
    """Say what was done, or that it was so already."""
    from pgflow_mp.observe.text import duration

    start = name[0].upper() + name[1:]
    if not wanted.pause:
        print(f"Resumed {name}." if changed else f"{start} was not paused.")
        return
    lasts = "" if wanted.lasts is None else f" for {duration(wanted.lasts.total_seconds())}"
    print(f"Paused {name}{lasts}." if changed else f"{start} is paused already.")
    sooner = "" if wanted.lasts is None else " before that"
    print(f"Go on with it{sooner}: {command('resume', word, *wanted.options)}")
