"""What a new run is to take from an earlier one: looked up, and refused before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgflow_mp.errors import FlowNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgflow_mp.cli.preflight import FlowFacts
    from pgflow_mp.cli.reuse_options import ReuseChoice
    from pgflow_mp.db.engine import Connection
    from pgflow_mp.db.reusing import Reuse


def check_steps(choice: ReuseChoice | None, flow: FlowFacts) -> None:
    """Raise FlowNotFound for a step that the flow has not."""
    known = [step.slug for step in flow.steps]
    for slug in choice.steps if choice is not None else ():
        if slug not in known:
            raise FlowNotFound(
                f'--reuse {slug}: step "{slug}" does not exist in flow "{flow.slug}"',
                hint=f"Its steps are {', '.join(known)}.",
            )


def find_reuse(
    conn: Connection, choice: ReuseChoice | None, flow: FlowFacts | None, options: Iterable[str]
) -> Reuse | None:
    """What is to be taken; ``flow`` is None if only the database knows it. Raises RunNotFound."""
    from pgflow_mp.cli.known_runs import find_run
    from pgflow_mp.db.reusing import Reuse

    if choice is None:
        return None
    reads = {step.slug: step.reads_input for step in flow.steps} if flow is not None else {}
    run = find_run(conn, choice.run, options)
    return Reuse(str(run.run_id), list(choice.steps), [reads.get(slug) for slug in choice.steps])
