"""Step definitions: what they hold, how they are built and checked (contract: worker section 6)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, MappingProxyType
from typing import Any, Literal, Required, TypeAlias, TypedDict, cast

from pgflow_mp.errors import FlowDefinitionError, FlowNotFound
from pgflow_mp.flows import limits, on_start, slugs, storage, validation
from pgflow_mp.flows.agreement import GivenTypes, check_array, check_patterns, check_types
from pgflow_mp.flows.binding import Argument, Source, StepFacts, bind
from pgflow_mp.flows.checks import check_annotations, check_nulls
from pgflow_mp.flows.defaults import asked_by
from pgflow_mp.flows.options import Nan, Storage
from pgflow_mp.flows.options import names as option_names
from pgflow_mp.flows.parents import named_parents, sources_of
from pgflow_mp.flows.refusals import about

Mode = Literal["fail", "skip", "skip-cascade"]
NotSkipped = Literal["fail", "skip-cascade"]
Parent = str | Callable[..., object]
PatternValue: TypeAlias = (
    "Mapping[str, PatternValue] | Sequence[PatternValue] | str | int | float | bool | None"
)
Pattern: TypeAlias = Mapping[str, PatternValue]
"""What JSON has to contain."""


class _Options(TypedDict, total=False):
    max_attempts: int | None
    base_delay: int | None
    timeout: int | None
    nan: Nan | None
    limit: int | None
    rate: str | float | None
    burst: int | None


class FlowOptions(_Options, total=False):
    """Options of a flow, the defaults of its steps."""

    storage: Storage | None
    artifacts: str | os.PathLike[str] | None


class _StepOptions(_Options, total=False):
    start_delay: int | None
    requires: Iterable[str] | str | None


class SureOptions(_StepOptions, total=False):
    """Options of a step that those which depend on it never miss."""

    when_exhausted: NotSkipped | None


class ConditionalOptions(SureOptions, total=False):
    """The same of one with a condition, without which nothing runs that depends on it."""

    when: Pattern | None
    unless: Pattern | None
    when_unmet: Required[NotSkipped]


class AnyStepOptions(_StepOptions, total=False):
    """Options of any step, but for its parents."""

    when: Pattern | None
    unless: Pattern | None
    when_unmet: Mode | None
    when_exhausted: Mode | None


class StepOptions(AnyStepOptions, total=False):
    """Options of a step or array."""

    depends_on: Parent | Iterable[Parent]


class OtherMapOptions(AnyStepOptions, total=False):
    """Options of a map that say nothing of the types of its items."""

    stop_after_alike: int | None
    storage: Storage | None
    barrier: bool | None


class MapOptions(OtherMapOptions, total=False):
    """Options of a map."""

    over: Parent | None
    tolerate: float | None
    batch: int | None


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """One step. ``options``, ``policy`` and the modes hold only what was set.

    ``policy`` is a map's failure policy and its ``batch``, by the names of their SQL columns. ``storage`` is
    how the map asks to be stored, by itself or by its flow; None where neither says it. ``barrier``: it waits
    for all of its parent. ``nan``: what NaN in a result is. ``arguments`` say what the handler gets.
    ``limits`` are by the parameters of define_limit. ``requires``: labels that a worker needs for it.
    """

    slug: str
    step_type: Literal["single", "map"]
    is_array: bool
    dependencies: tuple[str, ...]
    options: Mapping[str, int]
    policy: Mapping[str, int | float]
    limits: Mapping[str, int | float]
    requires: tuple[str, ...]
    storage: Storage | None
    barrier: bool
    nan: Nan
    when: Pattern | None
    unless: Pattern | None
    when_unmet: Mode | None
    when_exhausted: Mode | None
    handler: Callable[..., object]
    facts: StepFacts
    arguments: tuple[Argument, ...]

    @property
    def tolerates(self) -> bool:
        """Whether its output may hold the null of an item that failed."""
        return any(self.policy.get(name) for name in ("tolerated_failures", "tolerated_share"))

    @property
    def may_be_skipped(self) -> bool:
        """Whether what depends on it may run without it."""
        conditional = (self.when or self.unless) is not None and self.when_unmet in (None, "skip")
        return conditional or self.when_exhausted == "skip"

    @property
    def batch(self) -> int:
        """How many items the handler is given at once, as a list; 0 if it gets them one by one."""
        return int(self.policy.get("batch", 0))


class Steps(dict[str, StepDefinition]):
    """The steps of one flow by slug, in definition order. Looking up an unknown slug raises FlowNotFound."""

    def __init__(
        self,
        flow_slug: str,
        queue_mode: str = "flow",
        *,
        former_slugs: bool = False,
        storage: Storage | None = None,
        nan: Nan | None = None,
    ) -> None:
        super().__init__()
        self.flow_slug = flow_slug
        self.former_slugs = former_slugs
        self.queue_mode = queue_mode
        self.storage = storage
        self.on_start: dict[str, on_start.StartFunction] = {}
        """The functions that are run once in each process, by name."""
        self.nan: Nan = nan or "error"
        self._spelt: dict[str, str] = {}

    def add(self, step: StepDefinition) -> None:
        """Take a step that was checked against those before it."""
        self[step.slug] = step
        self._spelt[step.slug.lower()] = step.slug

    def alike(self, slug: str) -> str | None:
        """The step whose slug differs from this one only by case, if there is one, or has it."""
        return self._spelt.get(slug.lower())

    def __missing__(self, slug: str) -> StepDefinition:
        raise FlowNotFound(
            f'Step "{slug}" does not exist in flow "{self.flow_slug}"',
            hint=f"Its steps are {', '.join(self) or 'none'}.",
        )


def build_step(
    steps: Steps,
    kind: str,
    slug: object,
    handler: object,
    options: Mapping[str, Any],
    caller: FrameType,
    flow_input: Any = Any,
) -> StepDefinition:
    """Check one step against the steps before it. ``kind`` is step, array or map.

    ``caller`` is the frame that defines it, where names in annotations are looked up; ``flow_input`` is the
    type of the run's input.
    """
    flow_slug = steps.flow_slug
    slug = slugs.check_slug(_slug(slug, handler, flow_slug), former=steps.former_slugs)
    where = f'step "{slug}" of flow "{flow_slug}"'
    known = option_names(kind)
    unknown = [name for name in options if name not in known]
    validation.check_unknown(unknown, known, f'{kind.capitalize()} "{slug}"')
    function = validation.check_handler(handler, where)
    _check_is_new(slug, steps)
    parents = _parents(kind, slug, options, steps, where)
    with about("handler"):
        asked = sources_of(asked_by(function), steps, slug, where, is_map=kind == "map")
    parents = tuple(
        dict.fromkeys([*parents, *(of for source, of in asked.values() if source is Source.PARENT)])
    )
    of = [steps[parent] for parent in parents]
    barrier = storage.check_barrier(options, where, of, steps.storage)
    stored = storage.check_storage(options.get("storage"), where) if kind == "map" else None
    policy = validation.check_policy(options, where)
    facts = StepFacts(
        *(flow_slug, slug, kind == "map", parents, "batch" in policy, tuple(steps.on_start)),
        tolerant=tuple(parent.slug for parent in of if parent.tolerates),
    )
    names = {} if caller.f_locals is caller.f_globals else caller.f_locals
    given = GivenTypes(of, flow_input, names, flow_slug)
    with about("handler"):
        arguments = bind(function, facts, names, asked)
        check_annotations(function, arguments, facts, names)
        on_start.check_step(slug, arguments, where, steps.on_start)
        check_nulls(function, arguments, facts, of)
        check_types(function, arguments, facts, given)
        if kind == "array":
            check_array(function, facts, names)
    conditions = _conditions(options, where)
    check_patterns(conditions, facts, given)
    nan = validation.check_nan(options.get("nan"), where) or steps.nan
    return StepDefinition(
        slug=slug,
        step_type="map" if kind == "map" else "single",
        is_array=kind == "array",
        dependencies=parents,
        options=MappingProxyType(validation.check_options(options, where)),
        policy=MappingProxyType(policy),
        limits=limits.check_limits(options, where),
        requires=validation.check_requires(options.get("requires"), where),
        storage=stored or (steps.storage if kind == "map" else None),
        barrier=barrier,
        nan=nan,
        when=conditions.get("when"),
        unless=conditions.get("unless"),
        when_unmet=_mode(options, "when_unmet", where),
        when_exhausted=_mode(options, "when_exhausted", where),
        handler=function,
        facts=facts,
        arguments=arguments,
    )


def _slug(given: object, handler: object, flow_slug: str) -> object:
    """The slug that is given, or the function's name."""
    if given is not None:
        return given
    function = validation.check_handler(handler, f'a step of flow "{flow_slug}"')
    name = getattr(function, "__name__", None)
    if not isinstance(name, str) or name == "<lambda>":
        raise FlowDefinitionError(
            f'A step of flow "{flow_slug}" has a handler without a name',
            hint='Give the slug: flow.step("slug", handler).',
            option="handler",
        )
    return name


def _check_is_new(slug: str, steps: Steps) -> None:
    """Refuse a slug, or a queue of it, that the flow has already or cannot have."""
    if slug in steps:
        raise FlowDefinitionError(f'Step "{slug}" already exists in flow "{steps.flow_slug}"')
    slugs.check_same_but_for_case(steps.alike(slug), slug, steps.flow_slug)
    if steps.queue_mode == "step":
        slugs.check_step_queue(steps.flow_slug, slug, len(steps))


def _parents(kind: str, slug: str, options: Mapping[str, Any], steps: Steps, where: str) -> tuple[str, ...]:
    """The steps that the options name."""
    parents = named_parents(steps, slug, options.get("over" if kind == "map" else "depends_on"), where)
    if kind == "map" and len(parents) > 1:
        raise FlowDefinitionError(
            f'Map step "{slug}" can have at most one dependency, but {len(parents)} were provided: '
            + ", ".join(parents),
            hint="Join them in an array step first, and map over that one.",
        )
    return parents


def _conditions(options: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """The patterns that decide whether the step runs, by option; those that are set."""
    conditions = {}
    for name in ("when", "unless"):
        with about(name):
            pattern = validation.check_pattern(options.get(name), name, where)
        if pattern is not None:
            conditions[name] = pattern
    return conditions


def _mode(options: Mapping[str, Any], name: str, where: str) -> Mode | None:
    return cast(Mode | None, validation.check_mode(options.get(name), name, where))
