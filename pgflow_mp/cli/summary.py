"""What the command ``run`` says at its end: how it went, where the state is, what to do next."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

from pgflow_mp.cli.going_on import resume_of
from pgflow_mp.cli.known_runs import retry_advice
from pgflow_mp.cli.output import json_object
from pgflow_mp.cli.parser import command

if TYPE_CHECKING:
    from rich.console import Console

    from pgflow_mp.cli.command_line import RunOrder
    from pgflow_mp.cli.connecting import OpenDatabase
    from pgflow_mp.cli.preflight import FlowFacts
    from pgflow_mp.db.engine import Connection, RunRow
    from pgflow_mp.db.reusing import Reused
    from pgflow_mp.run_request import RunSummary

_PREVIEW: Final = 600
_GLIMPSE: Final = 240
_READABLE: Final = 1_000_000
_LINES: Final = 16
_LINE: Final = 100


@dataclass
class Told:
    """Everything that the summary may mention. ``done`` is None if there was nothing left to do.

    ``empty``: all of the last steps were skipped, so that there is no output. ``output`` is the length of the
    output in characters and its text, or how it begins; None: not looked at, or too large for one document.
    """

    order: RunOrder
    run_id: str
    flow: str
    status: str
    done: RunSummary | None
    output: tuple[int, str] | None
    place: str
    options: list[str]
    empty: bool = False
    items: tuple[int, int] | None = None
    written: int | None = None
    results: list[tuple[str, str, int]] = field(default_factory=list)
    """(Step, file, bytes) of what was written of steps."""
    unwritten: list[str] = field(default_factory=list)
    reused: list[Reused] = field(default_factory=list)

    @property
    def resume(self) -> str:
        """The command that goes on with the run."""
        return resume_of(self.order, self.run_id, self.options)


def of(
    order: RunOrder,
    flow: FlowFacts,
    run: RunRow | None,
    done: RunSummary | None,
    database: OpenDatabase,
) -> Told:
    """What is known of a run that was executed, or had completed before; ``look`` finds the rest."""
    if done is not None:
        run_id, status = done.run_id, done.status
    else:
        assert run is not None  # noqa: S101 - one of them is there
        run_id, status = run.run_id, run.status
    return Told(order, run_id, flow.slug, status, done, None, database.place, database.options)


def look(told: Told, database: OpenDatabase) -> None:
    """Find out what else there is to tell."""
    order, done = told.order, told.done
    told.reused = _reused(database, told.run_id)
    if told.status == "started":
        told.items = _progress(database, told.run_id)
    if told.status == "completed" and not order.output and not order.json:
        _look_at_output(told, database)
    if order.json and done is not None and done.failures:
        told.done = _with_inputs(done, database)


def _with_inputs(done: RunSummary, database: OpenDatabase) -> RunSummary:
    """The same with the inputs of its failed items whole."""
    from dataclasses import replace

    from pgflow_mp.db import engine
    from pgflow_mp.observe import grouping

    places = [(failure.step, failure.index) for failure in done.failures]

    def read(conn: Connection) -> RunSummary:
        steps = engine.run_progress(conn, done.run_id)
        failed = grouping.read_failures(conn, done.run_id, steps, whole=grouping.WHOLE)
        return replace(
            done, failures=grouping.items_at(conn, done.run_id, places, grouping.WHOLE), failed=failed
        )

    return database.ask(read)


def _reused(database: OpenDatabase, run_id: str) -> list[Reused]:
    from pgflow_mp.db import reusing

    return database.ask(lambda conn: reusing.reused(conn, run_id))


def _look_at_output(told: Told, database: OpenDatabase) -> None:
    from pgflow_mp.db.reads import documents

    def see(conn: Connection) -> None:
        leaves = documents.leaves(conn, told.run_id)
        told.empty = not leaves
        if all(leaf.whole for leaf in leaves):
            told.output = documents.beginning_of_output(conn, told.run_id, _READABLE, 4 * _GLIMPSE)

    database.ask(see)


def _progress(database: OpenDatabase, run_id: str) -> tuple[int, int]:
    from pgflow_mp.db import engine

    progress = database.ask(lambda conn: engine.run_progress(conn, run_id))
    steps = [step for step in progress if step.initial_tasks is not None]
    total = sum(step.initial_tasks or 0 for step in steps)
    left = sum(
        step.initial_tasks or 0 if step.remaining_tasks is None else step.remaining_tasks for step in steps
    )
    return total - left, total


def tell(told: Told, results: IO[str]) -> None:
    """Print it: JSON to ``results``; text there, too, unless the run's output goes there."""
    from pgflow_mp.cli.screen import console

    if told.order.json:
        print(_json(told), file=results, flush=True)
        return
    screen = console(None if told.order.output == "-" else results)
    style = {"completed": "bold green", "failed": "bold red"}.get(told.status, "bold yellow")
    word = told.status
    if told.status == "started":
        word = "stopped" if told.done is not None and told.done.by_operator else "interrupted"
    screen.print(f"[{style}]{word}[/]  [bold]{told.flow}[/]  run {told.run_id}", soft_wrap=True)
    for name, text in _lines(told):
        _print_pair(screen, name, text)
    if told.done is not None:
        _tell_failures(screen, told, told.done)
    if told.done is not None and told.status == "failed":
        if advice := retry_advice([failure.error for failure in told.done.failures], told.done.unmet):
            _advise(screen, advice, told.resume)
    elif told.status == "started":
        _advise(screen, "Go on with it", told.resume)
    if told.status == "completed" and told.written is None and not told.empty and not _fits(told):
        _advise(screen, "Fetch the output", f"{told.resume} --output FILE")


def _tell_failures(screen: Console, told: Told, done: RunSummary) -> None:
    from pgflow_mp.cli import failed_items

    if done.failed.groups:
        more = command("failures", told.run_id, *told.options)
        failed_items.print_groups(screen, done.failed, failed_items.ROOM, more)
        screen.print()
        _advise(screen, "See all about it", more)
    elif told.status == "failed":
        if done.error:
            _print_pair(screen, "error", done.error)
        _advise(screen, "See all about it", command("status", told.run_id, *told.options))


def _lines(told: Told) -> list[tuple[str, str]]:
    from pgflow_mp.client.endings_of_runs import BY_OPERATOR
    from pgflow_mp.observe.text import duration, percent, plural, rate, size

    lines: list[tuple[str, str]] = []
    if (done := told.done) is not None:
        if done.by_operator:
            lines.append(("reason", BY_OPERATOR))
        work = f"{plural(done.items, 'item')} in {duration(done.wall)}"
        work += f", {rate(done.rate)}" if done.items else ""
        lines.append(("work", f"{work}; {plural(done.lanes, 'worker')}, used {done.utilisation:.0%}"))
        troubles = [
            f"{number:,} {what}"
            for number, what in (
                (done.failure_count, f"failed{_tolerated(done)}"),
                (done.retried, "failed at first and tried again"),
                (done.crashed, "crashed"),
                (done.late, "too late to count"),
            )
            if number
        ]
        if troubles:
            lines.append(("trouble", ", ".join(troubles)))
    else:
        lines.append(("work", "nothing left to do: the run had completed before"))
    lines += [("reused", each.text.removeprefix("reused ")) for each in told.reused]
    if told.order.key is not None:
        lines.append(("key", told.order.key))
    if told.items is not None:
        lines.append(("so far", f"{told.items[0]:,} of {told.items[1]:,} items ({percent(*told.items)})"))
    lines.append(("state", told.place))
    if told.written is not None and told.order.output != "-":
        lines.append(("output", f"{size(told.written)} in {told.order.output}"))
    elif told.written is None and told.status == "completed":
        lines.append(("output", _preview(told)))
    lines += [("results", f"{step}: {size(count)} in {name}") for step, name, count in told.results]
    for name in told.unwritten:
        old = "; what is there is older than this run" if os.path.lexists(name) else ""
        lines.append(("missing", f"{name} was not written{old}"))
    return lines


def _tolerated(done: RunSummary) -> str:
    count = done.failed.count("tolerated")
    some = "" if count == done.failure_count else f"{count:,} "
    return f" ({some}tolerated)" if count else ""


def _fits(told: Told) -> bool:
    return told.output is not None and told.output[0] <= _PREVIEW


def _preview(told: Told) -> str:
    from pgflow_mp.observe.text import shorten, size

    if told.empty:
        return "none: every step that it would hold was skipped"
    if told.output is None:
        return "too large to be shown"
    length, text = told.output
    if _fits(told):
        return shorten(text, _PREVIEW)
    return f"{size(length)} of JSON, beginning with\n{_beginning(length, text)}"


def _beginning(length: int, output: str) -> str:
    """The first lines of a large output, as people like to read JSON."""
    import msgspec

    from pgflow_mp.observe.text import shorten

    if length > len(output):
        return shorten(output, _GLIMPSE) + " ..."
    lines = msgspec.json.format(output, indent=2).splitlines()
    shown = [shorten(line, _LINE) for line in lines[1 : 1 + _LINES]]
    return "\n".join([*shown, "    ..."])


def _print_pair(screen: Console, name: str, text: str) -> None:
    """Not wrapped, so that it can be copied in one piece."""
    from rich.text import Text

    from pgflow_mp.redaction import printable

    first, *others = printable(text).splitlines() or [""]
    screen.print(Text.assemble("  ", (f"{name:<8}", "dim"), "  ", first), soft_wrap=True)
    for line in others:
        screen.print(Text.assemble("            ", line), soft_wrap=True)


def _advise(screen: Console, what: str, line: str) -> None:
    """A command to be copied: never broken into lines."""
    from rich.text import Text

    screen.print(Text.assemble((f"{what}: ", "dim"), line), soft_wrap=True)


def _json(told: Told) -> str:
    done = told.done
    if done is None:
        return json_object(_record(told))
    return json_object(_record(told), failures=done.failures, failure_groups=done.failed.groups)


def _record(told: Told) -> dict[str, Any]:
    record: dict[str, Any] = {
        "run_id": told.run_id,
        "flow": told.flow,
        "status": told.status,
        "database": told.place,
    }
    if told.order.key is not None:
        record["key"] = told.order.key
    if (done := told.done) is not None:
        record |= {
            "items": done.items,
            "seconds": round(done.wall, 3),
            "rate": round(done.rate, 2),
            "workers": done.lanes,
            "utilisation": round(done.utilisation, 3),
            "failed": done.failure_count,
            "retried": done.retried,
            "crashed": done.crashed,
            "late": done.late,
            "error": done.error,
        }
    if told.written is not None:
        record |= {"output_file": told.order.output, "output_bytes": told.written}
    if told.reused:
        record["reused"] = [each._asdict() for each in told.reused]
    if told.results:
        record["results"] = [{"step": step, "file": name, "bytes": n} for step, name, n in told.results]
    if told.unwritten:
        record["unwritten"] = told.unwritten
    return record
