"""failures: what failed in a run, in groups of alike errors, and the items with what they were given."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.known_runs import no_step, open_run
from pgflow_mp.cli.output import json_object
from pgflow_mp.cli.parser import Parser, UsageError, add_database, add_json, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgflow_mp.db.engine import RunRow, StepProgress
    from pgflow_mp.observe.reports import FailedItem, RunFailures

_UNLIMITED: Final = 2**31 - 1


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} RUN_ID [STEP] [OPTIONS]"
    parser.description = (
        "Show the items of a run that failed: how many with which error, and examples with their inputs\n"
        "and whole errors. Values in errors are folded: * stands for numbers, paths, quoted texts."
    )
    parser.add_argument("run", metavar="RUN_ID", help="the run's id, or how it begins")
    parser.add_argument("step", nargs="?", metavar="STEP", help="only items of this step")
    parser.option(
        "--error",
        env="PGFLOW_ERROR",
        metavar="TEXT",
        help="only items whose error, or whose group's line, has this text in it",
    )
    parser.option(
        "--limit",
        env="PGFLOW_LIMIT",
        metavar="N",
        default=20,
        convert=converters.count,
        help="how many groups, and how many examples in all of them, to show (20)",
    )
    parser.option(
        "--all",
        env="PGFLOW_ALL",
        flag=True,
        default=False,
        help="every item in index order, a line each, and all groups",
    )
    parser.option(
        "--with-input",
        env="PGFLOW_WITH_INPUT",
        flag=True,
        default=False,
        help="show inputs whole; else shortened to one line",
    )
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Print it."""
    from pgflow_mp.db import engine
    from pgflow_mp.observe import grouping
    from pgflow_mp.observe.read_reports import read_run

    if args.error is not None and not args.error.strip():
        raise UsageError("--error needs a text", hint="Leave it out to see all failures.")
    limit = _UNLIMITED if args.all else args.limit
    whole = _UNLIMITED if args.with_input else grouping.WHOLE if args.json else 0
    with open_run(database_choice(args), args.run, writes=False) as (database, conn, run):
        steps = engine.run_progress(conn, run.run_id)
        _check_step(run, steps, args.step)
        found = grouping.read_failures(
            conn,
            run.run_id,
            steps,
            step=args.step,
            text=args.error,
            groups=limit,
            examples=0 if args.all else limit,
            whole=whole,
        )
        items = (
            grouping.iter_items(conn, run.run_id, steps, step=args.step, text=args.error, whole=whole)
            if args.all
            else None
        )
        if args.json:
            _print_json(run, found, items)
        else:
            words = [args.run, *([args.step] if args.step else [])]
            report = read_run(conn, run.run_id) if run.status != "started" else None
            state = run.status if report is None else report.state
            _print(run, state, found, items, words, database.options, whole=args.with_input, text=args.error)
    return OK


def _check_step(run: RunRow, steps: list[StepProgress], slug: str | None) -> None:
    known = [step.step_slug for step in steps]
    if slug is not None and slug not in known:
        raise no_step(run, slug, known)


def _print_json(run: RunRow, found: RunFailures, items: Iterator[FailedItem] | None) -> None:
    """One object; its ``items``, of which there may be any number, are written as they come."""
    import msgspec

    head = {"run_id": str(run.run_id), "flow": run.flow_slug, "status": run.status, "failed": found.failed}
    text = json_object(head, groups=found.groups)
    if items is None:
        print(text)
        return
    print(f'{text[:-1]}, "items": [', end="")
    before = ""
    for item in items:
        print(before + msgspec.json.encode(item).decode(), end="")
        before = ", "
    print("]}")


def _print(
    run: RunRow,
    state: str,
    found: RunFailures,
    items: Iterator[FailedItem] | None,
    words: list[str],
    options: list[str],
    *,
    whole: bool,
    text: str | None,
) -> None:
    from pgflow_mp.cli import failed_items
    from pgflow_mp.cli.screen import console, paint
    from pgflow_mp.observe import wording

    again = [*words, *options]
    screen = console(sys.stdout)
    how = paint(wording.words(state), state)
    screen.print(f"[bold]{run.flow_slug}[/]  run {run.run_id} ", how, soft_wrap=True)
    if not found.failed:
        print("No item of it has failed." if text is None else f"No item of it has failed with {text!r}.")
        return
    shown = [group for group in found.groups if group.examples] if items is None else found.groups
    failed_items.print_groups(screen, found, len(shown), command("failures", *again, "--all"), examples=False)
    if items is not None:
        screen.print()
        failed_items.print_items(screen, items, brief=True, whole=whole)
        return
    examples = [example for group in shown for example in group.examples]
    failed_items.print_items(screen, examples, whole=whole)
    screen.print()
    first = examples[0]
    if found.failed > len(examples):
        print(f"See each of them: {command('failures', *again, '--all')}")
    one = command("replay", run.run_id, first.step, str(first.index), "FLOW", *options)
    print(f"Execute one again: {one}")
