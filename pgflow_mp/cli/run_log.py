"""logs: what happened in a run, in order: its steps, and the items that failed."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.known_runs import no_step, open_run
from pgflow_mp.cli.parser import Parser, add_database, add_json, command

if TYPE_CHECKING:
    from pgflow_mp.client.event_feed import Event
    from pgflow_mp.db.engine import Connection
    from pgflow_mp.db.reads.failed import FailedSince

_PAGE: Final = 1000
_LOOK_EVERY: Final = 0.5


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} RUN_ID [--follow] [OPTIONS]"
    parser.description = (
        "Print what happened in a run, in order, a line each: its start and end, those of its steps, the "
        "items that failed. What handlers print is in the output of their worker."
    )
    parser.add_argument("run", metavar="RUN_ID", help="the run's id, or how it begins")
    parser.option("--step", env="PGFLOW_STEP", metavar="STEP", help="only of this step")
    parser.option("--follow", "-f", env="PGFLOW_FOLLOW", flag=True, default=False, help="go on until it ends")
    parser.option(
        "--limit",
        env="PGFLOW_LIMIT",
        metavar="N",
        default=_PAGE,
        convert=converters.count,
        help=f"how many failed items to show, the first ones ({_PAGE})",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Print it."""
    from pgflow_mp.db import engine
    from pgflow_mp.observe.text import plural

    with open_run(database_choice(args), args.run, writes=False) as (database, conn, run):
        steps = [step.step_slug for step in engine.run_progress(conn, run.run_id)]
        if args.step is not None and args.step not in steps:
            raise no_step(run, args.step, steps)
        log = _Log(conn, str(run.run_id), run.flow_slug, args.step, args.limit)
        for at, record in log.records(follow=args.follow):
            print(json.dumps(record) if args.json else _line(at, record), flush=args.follow)
        if log.hidden and not args.json:
            further = command("failures", str(run.run_id), *database.options)
            print(f"... and {plural(log.hidden, 'item')} that failed later: {further}")
    return OK


class _Log:
    """The records of a run, or of one step of it; ``hidden`` failed items were beyond the limit."""

    def __init__(self, conn: Connection, run_id: str, flow: str, step: str | None, limit: int) -> None:
        from pgflow_mp.client.event_feed import EventLog

        self._conn, self._run, self._flow, self._step = conn, run_id, flow, step
        self._events = EventLog([run_id])
        self._last: FailedSince | None = None
        self._left = limit
        self.hidden = 0

    def records(self, *, follow: bool) -> Iterator[tuple[datetime, dict[str, Any]]]:
        """In order, as far as it is known when it is looked; with ``follow`` until the run has ended."""
        while True:
            # At the same moment an item comes before the end that follows from it.
            found = [*map(self._of_item, self._failed()), *map(self._of_event, self._look())]
            yield from sorted(found, key=lambda record: record[0])
            if self._events.over or not follow:
                return
            time.sleep(_LOOK_EVERY)

    def _look(self) -> list[Event]:
        events = self._events.look(self._conn)
        for event in events:
            self._events.take(event)
        return [event for event in events if self._step in (None, event.step)]

    def _failed(self) -> Iterator[FailedSince]:
        from pgflow_mp.db.reads.failed import failed_since

        while page := failed_since(self._conn, self._run, self._last, _PAGE):
            self._last = page[-1]
            for item in page:
                if self._step not in (None, item.step_slug):
                    continue
                if self._left <= 0:
                    self.hidden += 1
                    continue
                self._left -= 1
                yield item

    def _of_event(self, event: Event) -> tuple[datetime, dict[str, Any]]:
        told = {"at": event.at.isoformat(), "run_id": event.run, "flow": event.flow, "step": event.step}
        return event.at, {**told, "index": None, "status": event.status}

    def _of_item(self, item: FailedSince) -> tuple[datetime, dict[str, Any]]:
        from pgflow_mp.redaction import redact

        told = {"at": item.failed_at.isoformat(), "run_id": self._run, "flow": self._flow}
        told |= {"step": item.step_slug}
        more = {"attempts": item.attempts, "error": redact(item.error)}
        return item.failed_at, {**told, "index": item.task_index, "status": "failed", **more}


def _line(at: datetime, record: dict[str, Any]) -> str:
    from pgflow_mp.observe.text import essence, plural
    from pgflow_mp.redaction import printable

    when = f"{at.astimezone():%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}"
    if record["index"] is not None:
        place = (record["step"], record["index"])
        tries = plural(record["attempts"], "attempt")
        why = printable(essence(record["error"], beside=place))
        return f"{when}  item {place[0]}[{place[1]}] failed after {tries}: {why}"
    who = f"run of {record['flow']}" if record["step"] is None else f"step {record['step']}"
    return f"{when}  {who} {record['status']}"
