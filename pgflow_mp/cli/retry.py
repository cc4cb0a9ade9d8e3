"""retry: failed items of a run are tried again, and what followed from them is computed again."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.asked import add_output
from pgflow_mp.cli.command_line import RetryOrder, retry_order, run_order
from pgflow_mp.cli.complaints import OK, RUN_FAILED
from pgflow_mp.cli.flow_targets import handler_words
from pgflow_mp.cli.known_runs import open_run, resume_command
from pgflow_mp.cli.parser import Parser, add_database, add_json, command
from pgflow_mp.cli.working import add_only, add_work
from pgflow_mp.errors import FlowNotFound, InputError

if TYPE_CHECKING:
    from pgflow_mp.db.engine import Connection, RunRow
    from pgflow_mp.db.retrying import RetriedStep

_INPUT: Final = 24  # columns of an item's input


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} RUN_ID [FLOW] [--step STEP] [OPTIONS]"
    parser.description = (
        "Try failed items of a run again, tolerated ones, too, whether it failed or is completed; what "
        "followed from them is computed again, all else is kept. Workers execute it, or, with --work, this "
        "command."
    )
    parser.add_argument(
        "--failed",
        action="store_true",
        help="only what a failed run failed of and had not finished: nothing that is done is computed again",
    )
    parser.add_argument("run", metavar="RUN_ID", help="the run's id, or how it begins")
    parser.add_argument(
        "flow",
        nargs="?",
        metavar="FLOW",
        help="where the flow is: module:flow, path.py:flow, a flow file, an example",
    )
    group = parser.add_argument_group("which items (all that failed)")
    parser.option(
        "--step",
        env="PGFLOW_STEP",
        metavar="STEP",
        action="append",
        group=group,
        help="only items of this step; several times",
    )
    parser.option(
        "--index",
        env="PGFLOW_INDEX",
        metavar="N",
        action="append",
        convert=indexes,
        group=group,
        help="only items with these indexes: 7, 5-9, or several with commas; several times",
    )
    parser.option(
        "--error",
        env="PGFLOW_ERROR",
        metavar="TEXT",
        action="append",
        group=group,
        help="only items whose error contains this text; several times",
    )
    parser.option(
        "--dry-run",
        env="PGFLOW_DRY_RUN",
        flag=True,
        default=False,
        help="only say what would be done",
    )
    parser.option(
        "--yes",
        env="PGFLOW_YES",
        flag=True,
        default=False,
        help="do not ask, on a terminal, before anything that is done is computed again",
    )
    parser.option(
        "--work",
        env="PGFLOW_WORK",
        flag=True,
        default=False,
        help="execute it here to its end, as run --resume does",
    )
    parser.option(
        "--new-steps",
        env="PGFLOW_NEW_STEPS",
        flag=True,
        default=False,
        help="add the steps that its flow has got since it was started, those of FLOW if it is named",
    )
    add_output(parser, "with --work: ")
    parser.option(
        "--timeout",
        env="PGFLOW_TIMEOUT",
        metavar="S",
        convert=converters.seconds,
        help="with --work: stop after so long, in order (exit status 124)",
    )
    add_only(parser)
    add_json(parser)
    add_work(parser)
    add_database(parser)


def indexes(text: str) -> list[tuple[int, int]]:
    """Stretches [first, end) of indexes: 7, 5-9, or several with commas."""
    from pgflow_mp.db.retrying import LAST

    found: list[tuple[int, int]] = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise argparse.ArgumentTypeError(f"{text!r} is neither an index nor a range like 5-9")
        begin, end = int(first), int(last if dash else first) + 1
        if begin >= end:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} ends before it begins")
        if end > LAST:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} is more than an index can be")
        found.append((begin, end))
    return found


def execute(args: argparse.Namespace) -> int:
    """Say what will be done, do it, and execute it if asked to."""
    from pgflow_mp.db import engine

    order, work = retry_order(args), run_order(args, resume=args.run) if args.work else None
    if order.new_steps and work is None:
        from pgflow_mp.cli.growing import add_new_steps

        return add_new_steps(
            order.database, order.run, order.flow, args.handlers, order.compile, as_json=order.json
        )
    job = None
    if work is not None:
        from pgflow_mp.cli import run as run_verb

        if order.new_steps:  # which run --resume adds
            return run_verb.perform(work)
        job = run_verb.prepare(work)
    with open_run(order.database, order.run) as (database, conn, run):
        if job is not None:
            run_verb.flow_of(job, run)
        done: list[RetriedStep] | None = None
        if order.failed:
            words = handler_words(order.flow, args.handlers)
            _check_failed(conn, run, order.flow, words, database.options)
            queued = 0 if work else engine.retry_failed_tasks(conn, run.run_id)
        else:
            done = _retry(conn, run, order)
            if done is None:
                return OK
            queued = sum(step.retried + step.unfinished for step in done)
        status = engine.run_status(conn, run.run_id) or "started"
        options = [*handler_words(order.flow, args.handlers), *database.options]
    if work is not None and (order.failed or status != "failed" or done):
        return run_verb.perform(replace(work, resume=run.run_id), job)
    if order.json:
        told = {"run_id": str(run.run_id), "flow": run.flow_slug, "queued": queued}
        print(json.dumps(told if done is None else {**told, "steps": [_for_programs(step) for step in done]}))
    elif order.failed or done:
        from pgflow_mp.observe.text import plural

        print(f"Queued {plural(queued, 'item')} of run {run.run_id} of {run.flow_slug} again.")
        if status == "started":
            print(f"Workers will execute it, or here: {resume_command(order.flow, run.run_id, *options)}")
    return RUN_FAILED if work is not None else OK


def _retry(conn: Connection, run: RunRow, order: RetryOrder) -> list[RetriedStep] | None:
    """Say what will be done, and do it. None where it is not to be done."""
    from pgflow_mp.cli import retry_texts
    from pgflow_mp.db import engine
    from pgflow_mp.db.retrying import Choice, retry_items

    choice = Choice(order.steps, order.indexes, order.errors)
    known = [step.step_slug for step in engine.run_progress(conn, run.run_id)]
    for step in order.steps or ():
        if step not in known:
            raise FlowNotFound(
                f'Step "{step}" does not exist in run {run.run_id} of flow "{run.flow_slug}"',
                hint=f"Its steps are {', '.join(known)}.",
            )
    plan = retry_items(conn, run.run_id, choice, dry_run=True)
    named = _named(conn, run, plan)
    _say(order, retry_texts.plan_of(plan, run, named) if plan else retry_texts.nothing(choice, run))
    if order.dry_run:
        if order.json:
            told: dict[str, Any] = {"run_id": str(run.run_id), "flow": run.flow_slug, "queued": 0}
            print(json.dumps({**told, "steps": [_for_programs(step) for step in plan], "dry_run": True}))
        _say(order, "Nothing was changed." if plan else "")
        return None
    if not plan:
        return []
    if any(step.is_recomputed and step.status == "completed" for step in plan) and not _agreed(order):
        _say(order, "Nothing was changed.")
        return None
    done = retry_items(conn, run.run_id, choice)
    if done != plan:
        text = retry_texts.plan_of(done, run, named) if done else retry_texts.nothing(choice, run)
        _say(order, "Meanwhile it was another:\n" + text)
    return done


def _named(conn: Connection, run: RunRow, plan: list[RetriedStep]) -> dict[tuple[str, int], str]:
    """How the first items of each step are shown, which is by their inputs."""
    from pgflow_mp.cli.retry_texts import NAMED
    from pgflow_mp.observe.grouping import items_at

    places = [(step.step, index) for step in plan for index in step.first_indexes[:NAMED]]
    found = items_at(conn, run.run_id, places)
    return {(item.step, item.index): item.shown(_INPUT) for item in found}


def _say(order: RetryOrder, text: str) -> None:
    if text:
        print(text, file=sys.stdout if order.tells else sys.stderr)


def _agreed(order: RetryOrder) -> bool:
    """Whether it is to be done: asked on a terminal only."""
    if order.sure or not order.tells or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    try:
        return input("Compute again what is done? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _for_programs(step: RetriedStep) -> dict[str, Any]:
    return step._asdict()


def _check_failed(
    conn: Connection, run: RunRow, flow: str | None, words: list[str], options: list[str]
) -> None:
    from pgflow_mp.db import engine
    from pgflow_mp.observe.text import plural

    if run.status == "failed":
        return
    failed = sum(step.failed_tasks for step in engine.run_progress(conn, run.run_id))
    if run.status == "started":
        hint = f"Go on with it: {resume_command(flow, run.run_id, *words, *options)}"
    elif failed:
        again = command("retry", str(run.run_id), *options)
        hint = f"{plural(failed, 'item')} failed in it, as its flow tolerates. Try them again: {again}"
    else:
        hint = "All of its work is done."
    raise InputError(f"Run {run.run_id} is {run.status}, only a failed run can be retried", hint=hint)
