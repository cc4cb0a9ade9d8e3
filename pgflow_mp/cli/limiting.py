"""limits: how many items of a flow or a step are worked on at once, and how many a second."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.known_runs import never_started
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command
from pgflow_mp.errors import FlowNotFound, InputError

if TYPE_CHECKING:
    from pgflow_mp.db.engine import Connection
    from pgflow_mp.db.flow_limits import FlowLimit

_NONE: Final = "none"
_HEADS: Final = ("flow", "step", "at once", "held", "rate", "burst", "said by")


def _count_or_none(text: str) -> int | str:
    return _NONE if text.strip().lower() == _NONE else converters.count(text)


def _rate_or_none(text: str) -> float | str:
    from pgflow_mp.flows.limits import per_second

    if text.strip().lower() == _NONE:
        return _NONE
    try:
        return per_second(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} [FLOW [STEP]] [OPTIONS]"
    parser.description = (
        "Show the limits of flows and their steps, or set those of one, for all workers of the database."
    )
    parser.add_argument("flow", nargs="?", metavar="FLOW", help="the slug of a flow")
    parser.add_argument(
        "step", nargs="?", metavar="STEP", help="a step of it; without one, the flow as a whole"
    )
    parser.option(
        "--at-once",
        env="PGFLOW_AT_ONCE",
        metavar="N",
        convert=_count_or_none,
        help="how many items workers may hold at once, all together; none: as many as they like",
    )
    parser.option(
        "--rate",
        env="PGFLOW_RATE",
        metavar="RATE",
        convert=_rate_or_none,
        help="how many may be handed to them in a time: 100/s, 30/min, 1000/h; or none",
    )
    parser.option(
        "--burst",
        env="PGFLOW_BURST",
        metavar="N",
        convert=_count_or_none,
        help="how many of a rate may be handed out at one moment; none: a tenth of a second's",
    )
    parser.option(
        "--reset",
        env="PGFLOW_RESET",
        flag=True,
        default=False,
        help="go back to what the code of the flow says",
    )
    add_json(parser)
    add_database(parser)


class _Wanted(NamedTuple):
    """What is to be set of a flow, or a step of it; ``reset``: what the code says."""

    flow: str
    step: str | None
    values: dict[str, Any]
    reset: bool


def execute(args: argparse.Namespace) -> int:
    """Set them, if that is wanted, and show them."""
    from pgflow_mp.cli.connecting import never_used, open_database
    from pgflow_mp.db import flow_limits
    from pgflow_mp.db.reads.runs import check_flow

    names = [name for name in ("at_once", "rate", "burst") if getattr(args, name) is not None]
    if any("\0" in (text or "") for text in (args.flow, args.step)):
        raise InputError("FLOW and STEP must not contain a NUL character")
    if args.reset and names:
        raise UsageError(
            f"--reset and --{names[0].replace('_', '-')} cannot be used together",
            hint="--reset goes back to what the code says: give it alone.",
        )
    if (names or args.reset) and args.flow is None:
        raise UsageError(
            "Limits of which flow?", hint=f"For example: {command('limits', 'encode', '--at-once', '8')}"
        )
    choice = database_choice(args)
    if never_used(choice):
        if args.flow is not None:
            raise never_started(FlowNotFound, f'flow "{args.flow}"')
        _show([], args.json)
        return OK
    writes = bool(names or args.reset)
    with open_database(choice, writes=writes) as database, database.connect() as conn:
        if writes:
            values = {name: getattr(args, name) for name in names}
            _set(conn, _Wanted(args.flow, args.step, values, args.reset))
        elif args.flow is not None:
            check_flow(conn, args.flow)
        found = flow_limits.list_limits(conn, args.flow)
    _show([each for each in found if args.step in (None, each.step_slug)], args.json)
    return OK


def _set(conn: Connection, wanted: _Wanted) -> None:
    """Change what was named, and keep the rest as it is."""
    from pgflow_mp.db import flow_limits

    if wanted.reset:
        flow_limits.reset_limit(conn, wanted.flow, wanted.step)
        return
    now: dict[str, Any] = {"at_once": None, "rate": None, "burst": None}
    for each in flow_limits.list_limits(conn, wanted.flow):
        if each.step_slug == wanted.step:
            now = {"at_once": each.at_once, "rate": each.rate, "burst": each.burst}
    if "rate" in wanted.values:
        now["burst"] = None  # it was one of the former rate
    now |= {name: None if value == _NONE else value for name, value in wanted.values.items()}
    if now["rate"] is None and now["burst"] is not None:
        raise UsageError(
            "--burst is how many of a rate may be handed out at one moment, and there is no rate",
            hint="Give --rate, too, or leave --burst out.",
        )
    flow_limits.set_limit(conn, wanted.flow, wanted.step, **now)


def _show(limits: list[FlowLimit], as_json: bool) -> None:
    if as_json:
        print(json.dumps([_record(each) for each in limits]))
        return
    if not limits:
        print("No limits.")
        return
    rows = [_HEADS, *map(_row, limits)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADS))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _record(limit: FlowLimit) -> dict[str, Any]:
    told = {name: getattr(limit, name) for name in ("at_once", "rate", "burst", "held", "is_set")}
    code = {name: getattr(limit, f"coded_{name}") for name in ("at_once", "rate", "burst")}
    return {"flow": limit.flow_slug, "step": limit.step_slug, **told, "code": code}


def _row(limit: FlowLimit) -> tuple[str, ...]:
    numbers = (limit.at_once, limit.held, limit.rate, limit.burst)
    at_once, held, rate, burst = ("-" if number is None else f"{number:,g}" for number in numbers)
    if limit.rate is not None:
        rate = _rate_text(limit.rate)
    code = [f"{limit.coded_at_once:,}"] if limit.coded_at_once else []
    code += [_rate_text(limit.coded_rate)] if limit.coded_rate else []
    said = f"limits (code: {', '.join(code) or 'none'})" if limit.is_set else "code"
    return limit.flow_slug, limit.step_slug or "-", at_once, held, rate, burst, said


def _rate_text(rate: float) -> str:
    """As it would be given: a whole number in the shortest time, else what is at least one."""
    times = (("s", rate), ("min", rate * 60), ("h", rate * 3600))
    whole = [(unit, number) for unit, number in times if abs(number - round(number)) < 1e-9 * number]
    unit, number = (whole or [each for each in times if each[1] >= 1] or times[-1:])[0]
    return f"{number:g}/{unit}"
