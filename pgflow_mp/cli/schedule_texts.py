"""What the command schedule prints."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pgflow_mp.cli.output import json_object
from pgflow_mp.client.schedule_calls import Planned, address
from pgflow_mp.observe.text import plural, shorten
from pgflow_mp.redaction import printable

if TYPE_CHECKING:
    from pgflow_mp.db.schedules import Schedule, ScheduledTime


def tell(text: str, told: Mapping[str, Any], *, json: bool) -> None:
    """One line, or one object."""
    print(json_module.dumps(told) if json else f"{printable(text)}.")


def tell_set(done: Planned, *, json: bool, dry: bool = False) -> None:
    """A schedule that was made or changed, or would be."""
    if json:
        import msgspec

        print(msgspec.json.encode(done).decode())
        return
    name = address(done.flow, done.name)
    did = "Would schedule" if dry else "Scheduled" if done.is_new else "Changed"
    print(printable(f"{did} {name}: {done.cron} ({done.time_zone}). Next:"))
    for time in done.next:
        print(f"  {time}")


def backfilled(name: str, asked: int, known: int) -> str:
    """What became of a backfill."""
    if not asked and not known:
        return f"{name} has no times in that span"
    more = f"; {known} were or will be anyway" if known else ""
    return f"{plural(asked, 'run')} of {name} will be started by the workers{more}"


def tell_list(found: Sequence[Schedule], *, json: bool) -> None:
    """All schedules: when they are due next, and what became of the last time."""
    if json:
        print(f"[{', '.join(json_object(each._asdict()) for each in found)}]")
        return
    if not found:
        print("Nothing is scheduled.")
        return
    from rich.table import Column, Table
    from rich.text import Text

    from pgflow_mp.cli.screen import console

    table = Table(
        Column("schedule", min_width=8, overflow="fold"),
        Column("cron", no_wrap=True),
        Column("next", no_wrap=True),
        Column("last"),
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    screen = console(sys.stdout)
    for each in found:
        table.add_row(
            Text(printable(address(each.flow_slug, each.name))),
            Text(printable(each.cron)),
            Text(_next(each)),
            Text(_last(each)),
        )
    screen.print(table)
    for each in found:
        if trouble := each.problem or (each.last_error if each.last_state == "failed" else None):
            print(f"{printable(address(each.flow_slug, each.name))}: {shorten(trouble, 300)}")


def tell_one(
    found: Schedule,
    input: bytes,
    coming: Sequence[ScheduledTime],
    past: Sequence[ScheduledTime],
    *,
    json: bool,
) -> None:
    """A schedule with its next times, and what became of the last ones."""
    if json:
        times = {"next": [each.local_time for each in coming], "past": [each._asdict() for each in past]}
        plain = json_object({**found._asdict(), **times})
        print(f'{plain[:-1]}, "input": {input.decode()}}}')
        return
    zone = printable(found.time_zone)
    lines = [
        ("schedule", address(found.flow_slug, found.name)),
        ("cron", f"{printable(found.cron)} ({zone}), missed times: {found.missed}"),
        (
            "input",
            shorten(input.decode(), 60) + (f", with the time as {found.due_as}" if found.due_as else ""),
        ),
        ("owner", f"{found.owner}, since {found.changed_at.astimezone(UTC):%Y-%m-%d %H:%M %Z}"),
        (
            "next",
            _next(found) if not coming else ", ".join(printable(each.local_time) for each in coming[:3]),
        ),
    ]
    if found.paused_at is not None:
        lines[-1] = ("next", f"paused since {found.paused_at.astimezone(UTC):%Y-%m-%d %H:%M %Z}")
    if found.problem:
        lines.append(("problem", shorten(found.problem, 300)))
    if found.asked:
        lines.append(("backfill", f"{plural(found.asked, 'run')} to be started"))
    for label, text in lines:
        print(f"{label:<9} {printable(text)}")
    for each in past:
        what = _what(each.state, each.run_status, each.error)
        run = f" run {each.run_id}" if each.run_id else ""
        print(f"  {printable(each.local_time):<23} {what}{run}{' (backfill)' if each.is_backfill else ''}")


def _what(state: str | None, status: str | None, error: str | None) -> str:
    if state == "started":
        return {None: "removed", "started": "running"}.get(status, str(status))
    return f"{state}: {shorten(error or '', 200)}" if state == "failed" else str(state)


def _next(each: Schedule) -> str:
    if each.paused_at is not None:
        return "paused"
    if each.problem:
        return "unknown"
    return printable(each.next_local) if each.next_local else "never"


def _last(each: Schedule) -> str:
    asked = f"{plural(each.asked, 'run')} of a backfill to come" if each.asked else ""
    if each.last_state is None or each.last_handled_at is None:
        return asked or "-"
    what = {"failed": "not started"}.get(each.last_state, _what(each.last_state, each.last_run_status, None))
    seconds = (datetime.now(UTC) - each.last_handled_at).total_seconds()
    return f"{what} {_ago(max(0.0, seconds))}" + (f", {asked}" if asked else "")


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
