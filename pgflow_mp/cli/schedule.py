"""schedule: runs that are started by the clock; workers start and execute them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.cli.command_line import DatabaseChoice, database_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.converters import integer
from pgflow_mp.cli.flow_targets import add_handlers, flow_target
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command
from pgflow_mp.errors import FlowNotFound, InputError, ScheduleNotFound

if TYPE_CHECKING:
    from pgflow_mp.cli.preflight import FlowFacts
    from pgflow_mp.client.schedule_calls import Missed, Planned
    from pgflow_mp.io.source import ItemSource
    from pgflow_mp.values.cronlines import CronLine
    from pgflow_mp.values.inputs import RunInput

_ACTIONS: Final = ("list", "show", "pause", "resume", "delete", "backfill")
_FOR_NEW: Final = ("as", "time_zone", "input", "due_as", "missed", "priority", "compile", "dry_run")
_MOST: Final = 1 << 20  # bytes of an input


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = (
        f"{parser.prog} FLOW --cron LINE [OPTIONS]\n"
        f"       {parser.prog} list [FLOW]\n"
        f"       {parser.prog} show|pause|resume|delete SCHEDULE\n"
        f"       {parser.prog} backfill SCHEDULE FROM..TO"
    )
    parser.description = (
        "Have runs started by the clock, by any worker of the database. SCHEDULE is FLOW, or FLOW/NAME."
    )
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="a flow to schedule, or one of the actions above"
    )
    parser.option(
        "--cron",
        env="PGFLOW_CRON",
        metavar="LINE",
        help="when: minute, hour, day of the month, month, day of the week; or @hourly, @daily, ...",
    )
    parser.option(
        "--time-zone", env="PGFLOW_TIME_ZONE", metavar="ZONE", default="UTC", help="whose clock that is (UTC)"
    )
    parser.option(
        "--input",
        "-i",
        env="PGFLOW_INPUT",
        metavar="INPUT",
        help="the input of its runs: JSON text, a file, or - for standard input, read now; at most 1 MB",
    )
    parser.option(
        "--due-as",
        env="PGFLOW_DUE_AS",
        metavar="NAME",
        help="each run has the time that it is for as a member NAME of its input",
    )
    parser.option(
        "--missed",
        env="PGFLOW_MISSED",
        choices=("skip", "once", "all"),
        default="once",
        metavar="HOW",
        help="what of times at which no worker was there: the last is made up for once (the default), all of "
        "them are (100 at most), or skip",
    )
    parser.option(
        "--as", env="PGFLOW_AS", metavar="NAME", default="default", help="its name, if a flow has several"
    )
    parser.option(
        "--priority",
        env="PGFLOW_PRIORITY",
        convert=integer,
        default=0,
        metavar="N",
        help="among the runs of a flow, those of the highest priority are worked on first (default: 0)",
    )
    parser.option(
        "--compile",
        env="PGFLOW_COMPILE",
        choices=("check", "extend", "skip", "recreate"),
        default="check",
        metavar="HOW",
        help="a flow that differs from the database: check (the default), extend, skip, recreate",
    )
    parser.option(
        "--dry-run", env="PGFLOW_DRY_RUN", flag=True, default=False, help="only show the next times"
    )
    add_handlers(parser)
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Do what the words say."""
    words, choice = list(args.words), database_choice(args)
    if "cron" in args.given or (args.cron is not None and words[:1] and words[0] not in _ACTIONS):
        if len(words) != 1:
            raise UsageError(
                "Which flow is to be scheduled?" if not words else f"Too many arguments: {words[1]}",
                hint=f"For example: {command('schedule', 'simple', '--cron', '0 3 * * *')}",
            )
        order = ScheduleOrder(
            *(words[0], args.cron, args.time_zone, args.input, args.due_as, args.missed, getattr(args, "as")),
            *(args.priority, args.compile, args.dry_run, args.json, args.handlers),
        )
        return _set(order, choice)
    if not words or words[0] not in _ACTIONS:
        hint = f"Give --cron LINE, or one of {', '.join(_ACTIONS)}."
        raise UsageError(
            f"schedule {words[0]}: no time is given" if words else "What is to be done?", hint=hint
        )
    if odd := sorted(args.given & {*_FOR_NEW}):
        raise UsageError(
            f"--{odd[0].replace('_', '-')} is for --cron, which is missing",
            hint=f"It is for a schedule that is set; {words[0]} takes it as it is.",
        )
    return _act(words[0], words[1:], choice, json=args.json)


@dataclass(frozen=True, slots=True)
class ScheduleOrder:
    """A schedule to be made or changed, as the command line tells it. ``input`` is what --input names."""

    target: str
    cron: str
    time_zone: str
    input: str | None
    due_as: str | None
    missed: Missed
    name: str
    priority: int
    compile: str
    dry_run: bool
    json: bool
    handlers: Sequence[str]


def _set(order: ScheduleOrder, choice: DatabaseChoice) -> int:
    from datetime import UTC, datetime

    from pgflow_mp.cli import schedule_texts
    from pgflow_mp.cli.compiling import check_known, compile_flow
    from pgflow_mp.cli.connecting import open_database
    from pgflow_mp.client import schedule_calls
    from pgflow_mp.values.cronlines import CronLine

    line = CronLine(order.cron, order.time_zone)
    flow, given, missing = _look(order, line, choice)
    slug = order.target if flow is None else flow.slug
    if order.dry_run:
        due = line.after(datetime.now(UTC), 5)
        schedule_texts.tell_set(
            schedule_calls.Planned(slug, order.name, line.line, line.time_zone, True, [d.local for d in due]),
            json=order.json,
            dry=True,
        )
        return OK
    with open_database(choice) as database, database.connect() as conn:
        if flow is None:
            check_known(conn, slug, missing, database.place)
        else:
            compile_flow(conn, flow, order.compile)
        done: Planned = schedule_calls.put(
            *(conn, slug, line, given.json),
            name=order.name,
            missed=order.missed,
            priority=order.priority,
            due_as=order.due_as,
        )
    schedule_texts.tell_set(done, json=order.json)
    return OK


def _look(
    order: ScheduleOrder, line: CronLine, database: DatabaseChoice
) -> tuple[FlowFacts | None, RunInput, Exception | None]:
    """The flow, if it is found outside of the database, and the input of its runs, which has to fit it."""
    import dataclasses
    from datetime import UTC, datetime

    from pgflow_mp.cli import feeding, preflight
    from pgflow_mp.cli.input_options import InputChoice
    from pgflow_mp.client.schedule_calls import with_time
    from pgflow_mp.io.source import ItemSource
    from pgflow_mp.values.inputs import RunInput

    read = feeding.read(InputChoice(text=order.input), database)
    given = _collected(read) if isinstance(read, ItemSource) else read
    if given is not None and len(given.json) > _MOST:
        raise _too_large(given.source)
    first = line.after(datetime.now(UTC), 1)[0]

    def of_run(given: RunInput) -> RunInput:
        return dataclasses.replace(given, json=with_time(given.json, order.due_as, first))

    try:
        target = flow_target(order.target, order.handlers)
        flows = preflight.look_at([target])
        flow = preflight.choose(flows, order.target)
    except FlowNotFound as error:
        if not order.target.isidentifier():
            raise
        given = given or RunInput(b"{}", "none was given: {}")
        of_run(given)
        return None, given, error
    given = given or preflight.missing_input(flow)
    checked = of_run(given)
    preflight.check_input(preflight.choose(preflight.look_at([target], checked), order.target), checked)
    return flow, given, None


def _collected(source: ItemSource) -> RunInput:
    """The items as one array."""
    from pgflow_mp.io.source import joined
    from pgflow_mp.values.inputs import RunInput

    parts: list[bytes] = []
    for batch in source.batches():
        if batch.elements:
            parts.append(joined(batch.elements)[1:-1])
            if sum(map(len, parts)) > _MOST:
                raise _too_large(source.name)
    return RunInput(b"[" + b",".join(parts) + b"]", source.name)


def _too_large(source: str) -> InputError:
    return InputError(
        f"{source} has more than 1 MB, and an input is kept with its schedule",
        hint="Have a step of the flow read what it works on.",
    )


def _act(action: str, words: list[str], choice: DatabaseChoice, *, json: bool) -> int:
    from pgflow_mp.cli import schedule_texts
    from pgflow_mp.cli.connecting import never_used, open_database
    from pgflow_mp.client import schedule_calls
    from pgflow_mp.db import schedules

    wanted = {"list": (0, 1), "backfill": (2, 2)}.get(action, (1, 1))
    if not wanted[0] <= len(words) <= wanted[1]:
        what, span = "SCHEDULE", []
        if action == "backfill":
            what, span = "SCHEDULE FROM..TO", ["2026-11-01..2026-11-25"]
        raise UsageError(
            f"Too many arguments: {words[-1]}" if len(words) > wanted[1] else f"{what} is missing",
            hint=f"For example: {command('schedule', action, 'report', *span)}",
        )
    if never_used(choice):
        if action == "list":
            schedule_texts.tell_list([], json=json)
            return OK
        raise ScheduleNotFound(f'There is no schedule "{words[0]}"', hint="Nothing was ever scheduled here.")
    with open_database(choice, writes=action not in ("list", "show")) as database, database.connect() as conn:
        if action == "list":
            schedule_texts.tell_list(schedules.schedules(conn, words[0] if words else None), json=json)
            return OK
        found = schedule_calls.find(conn, words[0])
        which = (found.flow_slug, found.name)
        if action == "show":
            schedule_texts.tell_one(
                found,
                schedules.input_of(conn, *which),
                schedules.times(conn, *which, planned=True, most=5),
                schedules.times(conn, *which, planned=False, most=20),
                json=json,
            )
            return OK
        told: dict[str, Any] = {"flow": found.flow_slug, "name": found.name}
        name = schedule_calls.address(*which)
        if action == "pause":
            told["was_paused"] = not schedules.pause(conn, *which)
            text = (
                f"{name} was paused already"
                if told["was_paused"]
                else f"Paused {name}: nothing of it is started"
            )
        elif action == "resume":
            told["was_paused"] = schedules.resume(conn, *which)
            text = f"Resumed {name}" if told["was_paused"] else f"{name} was not paused"
        elif action == "delete":
            schedules.delete(conn, *which)
            text = f"Deleted {name}; its runs stay"
        else:
            due = schedule_calls.span(_line_of(found), words[1])
            told["asked"], told["known"] = schedules.backfill(conn, *which, due)
            text = schedule_texts.backfilled(name, told["asked"], told["known"])
    schedule_texts.tell(text, told, json=json)
    return OK


def _line_of(found: Any) -> CronLine:
    from pgflow_mp.values.cronlines import CronLine

    return CronLine(found.cron, found.time_zone)
