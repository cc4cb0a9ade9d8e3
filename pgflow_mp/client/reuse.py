"""What a run that is started from Python is to take from an earlier one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pgflow_mp.client.step_handles import check_step
from pgflow_mp.db.reusing import Reuse
from pgflow_mp.errors import InputError
from pgflow_mp.flows import items
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.handles import step_in, step_of

if TYPE_CHECKING:
    from pgflow_mp.flows.typed import StepLike


def reuse_of(
    flow: Flow | str, from_run: str | None, steps: Sequence[StepLike], key: str | None = None
) -> Reuse | None:
    """``steps`` of ``from_run``; None where neither is given. Raises InputError, FlowNotFound for a step."""
    given = [steps] if isinstance(steps, str) else list(steps)
    slugs = [_slug_of(flow, step) for step in given]
    if from_run is None and not slugs:
        return None
    if from_run is None or not slugs:
        raise InputError(
            "from_run and reuse belong together",
            hint="from_run names an earlier run, reuse the steps whose work is taken from it.",
        )
    if key is not None:
        raise InputError(
            "key and from_run cannot be used together", hint="The run of a key is what it was given."
        )
    try:
        source = str(uuid.UUID(str(from_run)))
    except ValueError:
        raise InputError(f"{from_run!r} is not the id of a run", hint="Run ids are uuids.") from None
    if isinstance(flow, str):
        return Reuse(source, slugs, [None] * len(slugs))
    for slug in slugs:
        check_step(flow.steps, slug, flow.slug)
    return Reuse(source, slugs, [items.reads_beside(flow.steps[slug]) for slug in slugs])


def _slug_of(flow: Flow | str, step: StepLike) -> str:
    if isinstance(step, str):
        return step
    return (step_of(flow, step)[1] if isinstance(flow, str) else step_in(flow, step)).slug
