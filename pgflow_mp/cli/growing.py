"""Runs that get the steps which came to their flow later: retry --new-steps, and run --resume."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.flow_targets import flow_target, handler_words
from pgflow_mp.cli.known_runs import not_here, open_run, resume_command
from pgflow_mp.errors import InputError, ShapeMismatch

if TYPE_CHECKING:
    from pgflow_mp.cli.command_line import DatabaseChoice
    from pgflow_mp.cli.preflight import FlowFacts
    from pgflow_mp.db.engine import Connection, RunRow


def add_new_steps(
    choice: DatabaseChoice,
    text: str,
    target: str | None,
    handlers: Sequence[str],
    how: str,
    *,
    as_json: bool,
) -> int:
    """Give the run its new steps: those of the code in ``target``, else those of the database; tell it.

    ``text`` is the run's id or how it begins, ``how`` is as of --compile.
    """
    from pgflow_mp.cli import preflight
    from pgflow_mp.cli.compiling import compile_flow
    from pgflow_mp.db import engine, later_steps

    flows = preflight.look_at([flow_target(target, handlers)]) if target is not None else []
    with open_run(choice, text) as (database, conn, run):
        flow = next((flow for flow in flows if flow.slug == run.flow_slug), None)
        if flow is not None:
            compile_flow(conn, flow, how)
        elif flows:
            raise not_here(run, (flow.slug for flow in flows))
        added = later_steps.add(conn, str(run.run_id))
        status = engine.run_status(conn, run.run_id) or "started"
        options = database.options
    if as_json:
        print(json.dumps({"run_id": str(run.run_id), "flow": run.flow_slug, "added": added}))
        return OK
    if not added:
        print(f"Run {run.run_id} has all steps that flow {run.flow_slug} has in the database.")
        if target is None:
            print("Where the code has more, name it: it is compared with the database then.")
        return OK
    print(f"Run {run.run_id} of {run.flow_slug} has {_steps(added)}.")
    if status == "started":
        words = [*handler_words(target, handlers), *options]
        print(f"Workers will execute it, or here: {resume_command(target, str(run.run_id), *words)}")
    return OK


def adopt(conn: Connection, flow: FlowFacts, run: RunRow, how: str) -> RunRow:
    """The run to go on with, given the steps of the code where it can have them; else a note says why."""
    import psycopg

    from pgflow_mp.cli.compiling import compile_flow
    from pgflow_mp.db import engine, later_steps

    if not later_steps.are_lacking(conn, run.run_id, (step.slug for step in flow.steps)):
        return run
    try:
        compile_flow(conn, flow, how)
        added = later_steps.add(conn, run.run_id)
    except psycopg.errors.InsufficientPrivilege:
        return run
    except (ShapeMismatch, InputError) as error:
        if isinstance(error, ShapeMismatch) and run.status != "completed":
            raise
        print(f"note: run {run.run_id} stays as it is. {error}", file=sys.stderr)
        return run
    if added:
        print(f"note: run {run.run_id} has {_steps(added)}", file=sys.stderr)
    return engine.get_run(conn, run.run_id) or run


def _steps(added: list[str]) -> str:
    names = ", ".join(f'"{slug}"' for slug in added)
    return f"the new step {names}" if len(added) == 1 else f"the new steps {names}"
