"""What a run that is started from Python is to take from an earlier one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from pgflow_mp.client.step_handles import check_step
from pgflow_mp.db.reusing import Reuse
from pgflow_mp.errors import InputError
from pgflow_mp.flows import items
from pgflow_mp.flows.flow import Flow


def reuse_of(
    flow: Flow | str, from_run: str | None, steps: Sequence[str], key: str | None = None
) -> Reuse | None:
    """``steps`` of ``from_run``; None where neither is given. Raises InputError, FlowNotFound for a step."""
    slugs = [steps] if isinstance(steps, str) else list(steps)
    if from_run is None and not slugs:
        return None
    if from_run is None or not slugs:
        raise InputError(
            "from_run and reuse belong together",
            hint="from_run names an earlier run, reuse the steps whose work is taken from it.",
        )
    if key is not None:
        raise InputError("key and from_run exclude each other", hint="The run of a key is what it was given.")
    try:
        source = str(uuid.UUID(str(from_run)))
    except ValueError:
        raise InputError(f"{from_run!r} cannot be the id of a run", hint="Run ids are uuids.") from None
    if isinstance(flow, str):
        return Reuse(source, slugs, [None] * len(slugs))
    for slug in slugs:
        check_step(flow.steps, slug, flow.slug)
    return Reuse(source, slugs, [items.reads_beside(flow.steps[slug]) for slug in slugs])
