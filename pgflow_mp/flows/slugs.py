"""Rules for the slugs of flows and steps, which name their queues (contract: worker section 6).

Every function raises FlowDefinitionError with the contract's text.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows.refusals import about

MAX_SLUG_LENGTH: Final = 128
MAX_QUEUE_NAME_LENGTH: Final = 47  # pgmq takes no more
MAX_FLOW_SLUG_LENGTH: Final = MAX_QUEUE_NAME_LENGTH
"""The flow's slug is the name of its queue."""


@about("slug")
def check_slug(slug: object, *, former: bool = False) -> str:
    """Return ``slug`` if it is a valid flow or step slug, else raise with the contract's text.

    Two underscores in a row join a flow's and a step's slug in the name of a queue. ``former``: underscores
    as pgflow 0.14 allowed them, for what a database has from then.
    """
    if not isinstance(slug, str):
        raise FlowDefinitionError(f"Slug must be a string, not {type(slug).__name__}")
    if not slug:
        raise FlowDefinitionError("Slug cannot be empty")
    if len(slug) > MAX_SLUG_LENGTH:
        raise FlowDefinitionError(f"Slug '{slug}' cannot be longer than {MAX_SLUG_LENGTH} characters")
    if slug == "run":
        raise FlowDefinitionError("Slug 'run' is reserved and cannot be used")
    if slug[0] in "0123456789":
        raise FlowDefinitionError(f"Slug '{slug}' cannot start with a number")
    if not re.fullmatch(r"[A-Za-z0-9_]+", slug):
        suggestion = re.sub(r"[^A-Za-z0-9_]+", "_", slug).strip("_")
        raise FlowDefinitionError(
            f"Slug '{slug}' can only contain letters, numbers, and underscores",
            hint=f"For example: '{suggestion}'" if suggestion else "",
        )
    if not former and (slug.startswith("_") or slug.endswith("_") or "__" in slug):
        better = re.sub(r"_+", "_", slug).strip("_")
        raise FlowDefinitionError(
            f"Slug '{slug}' cannot start or end with an underscore, nor have two in a row",
            hint=f"Call it '{better}'. Without a slug, a step is named like its function. A flow that a "
            "database has from before keeps its slugs with Flow(..., former_slugs=True).",
        )
    return slug


@about("slug")
def check_flow_slug(slug: object, *, former: bool = False) -> str:
    """Like check_slug, with the shorter limit that the queue's name sets."""
    checked = check_slug(slug, former=former)
    if len(checked) > MAX_FLOW_SLUG_LENGTH:
        raise FlowDefinitionError(
            f"Flow slug '{checked}' cannot be longer than {MAX_FLOW_SLUG_LENGTH} characters",
            hint=f"It names the flow's queue; it has {len(checked)} characters.",
        )
    return checked


@about("former_slugs")
def check_former_slugs(former_slugs: object, queues: object) -> bool:
    """Whether slugs of before are taken. A flow with a queue for each step cannot have any."""
    if not isinstance(former_slugs, bool):
        raise FlowDefinitionError(f"former_slugs must be True or False, not {former_slugs!r}")
    if former_slugs and queues == "step":
        raise FlowDefinitionError(
            'former_slugs=True and queues="step" cannot be used together',
            hint='Flows of before have one queue: leave queues="step" out, or former_slugs.',
        )
    return former_slugs


@about("queues")
def check_queues(queues: object, flow_slug: str) -> Literal["flow", "step"]:
    """Return the queue mode, if it is one and the flow's slug is short enough for it."""
    if queues not in ("flow", "step"):
        raise FlowDefinitionError(
            f"queues of flow \"{flow_slug}\" must be 'flow' or 'step', not {queues!r}",
            hint="One queue for all steps, or one for each of them.",
        )
    if queues == "step":
        check_step_queue(flow_slug, "0", 0)
    return queues


@about("slug")
def check_step_queue(flow_slug: str, slug: str, index: int) -> str:
    """The name of a step's queue: with the step's slug, or its index where that is too long."""
    readable, fallback, shortest = (f"{flow_slug}__{last}".lower() for last in (slug, index, 0))
    if len(readable) <= MAX_QUEUE_NAME_LENGTH:
        return readable
    if len(shortest) > MAX_QUEUE_NAME_LENGTH:
        raise FlowDefinitionError(
            f'Flow "{flow_slug}" cannot use per-step queues. The shortest required queue "{shortest}" is '
            f"{len(shortest)} characters; PGMQ allows at most {MAX_QUEUE_NAME_LENGTH}. "
            "Shorten the concrete flow slug or use the default single queue."
        )
    if len(fallback) <= MAX_QUEUE_NAME_LENGTH:
        return fallback
    raise FlowDefinitionError(
        f'Cannot derive a queue for step "{slug}" at index {index} in flow "{flow_slug}". '
        f"The readable name is {len(readable)} characters and the index fallback is {len(fallback)}; "
        f"PGMQ allows at most {MAX_QUEUE_NAME_LENGTH}. Shorten the concrete flow slug, shorten the step slug "
        "enough for the readable name, or use the default single queue."
    )


def check_same_but_for_case(other: str | None, slug: str, flow_slug: str) -> None:
    """Refuse a step that differs from the ``other`` before it only by case."""
    if other is not None:
        raise FlowDefinitionError(
            f'Steps "{other}" and "{slug}" in flow "{flow_slug}" conflict case-insensitively: '
            "step slugs must be unique case-insensitively."
        )
