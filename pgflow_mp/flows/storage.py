"""How the items of maps are stored: what a definition may ask for, and what it asks for (docs/ranges.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows.options import DEFAULT_STORAGE, STORAGES, Storage
from pgflow_mp.flows.refusals import about

if TYPE_CHECKING:
    from pgflow_mp.flows.flow import Flow
    from pgflow_mp.flows.steps import StepDefinition


@about("storage")
def check_storage(given: object, where: str) -> Storage | None:
    """Return ``given`` if it is a storage, or None (not said). Raises FlowDefinitionError."""
    if given is None:
        return None
    if not isinstance(given, str) or given not in STORAGES:
        import difflib

        close = difflib.get_close_matches(str(given), STORAGES, 1)
        raise FlowDefinitionError(
            f"storage of {where} must be {' or '.join(map(repr, STORAGES))}, not {given!r}",
            hint=f"Did you mean {close[0]}?" if close else "",
        )
    return cast(Storage, given)


@about("barrier")
def check_barrier(
    options: Mapping[str, object], where: str, parents: Sequence[StepDefinition], of_flow: Storage | None
) -> bool:
    """Whether a map waits for all of its parent, as ``options`` say it. Raises FlowDefinitionError.

    ``of_flow`` is the flow's storage. Without a barrier a map and its parent are both to be in ranges, and
    nothing may decide over either that needs the whole of the parent.
    """
    given = options.get("barrier")
    if not isinstance(given, bool | None):
        raise FlowDefinitionError(
            f"barrier of {where} must be True or False, not {type(given).__name__}",
            hint="barrier=False lets a map over a map begin with what its parent has done.",
        )
    if given is None or given:
        return True
    parent = parents[0] if parents else None
    if parent is None or parent.step_type != "map":
        over = "the run's input" if parent is None else f'"{parent.slug}", which is not a map'
        raise FlowDefinitionError(
            f"barrier=False of {where} needs a map to begin with, yet it is a map over {over}",
            hint="Only a map with over= another map can begin early: remove barrier=False.",
        )
    for name in ("when", "unless"):
        if options.get(name) is not None:
            raise FlowDefinitionError(
                f"barrier=False of {where} cannot be used with a condition, which is decided by all of "
                f'the outputs of "{parent.slug}"',
                hint=f"Remove barrier=False, or {name}=.",
            )
    own = options.get("storage") or of_flow
    for what, storage in ((where, own), (f'its parent, step "{parent.slug}",', parent.storage)):
        if storage == "tasks":
            raise FlowDefinitionError(
                f'barrier=False of {where} is for maps in ranges, yet {what} has storage="tasks"',
                hint='Remove barrier=False, or let both maps have storage="ranges".',
            )
    return False


def asked(flow: Flow) -> dict[str, Storage]:
    """The storages that the code asks for, by slug: a map without a barrier asks for its parent's, too."""
    early = [step for step in flow.steps.values() if not step.barrier]
    found: dict[str, Storage] = dict.fromkeys(
        [slug for step in early for slug in (step.slug, *step.dependencies)], "ranges"
    )
    return found | {step.slug: step.storage for step in flow.steps.values() if step.storage is not None}


def when_new(flow: Flow) -> dict[str, Storage]:
    """The storages of all maps of ``flow`` once it is created."""
    maps = [slug for slug, step in flow.steps.items() if step.step_type == "map"]
    return dict.fromkeys(maps, DEFAULT_STORAGE) | asked(flow)
