"""What every place that runs items does alike: load flows, describe them, find the function of a step."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

import msgspec

from pgflow_mp import paths
from pgflow_mp.executors.messages import FlowInfo, Kind, Setup, StepInfo
from pgflow_mp.flows import handlers
from pgflow_mp.flows.checks import return_type
from pgflow_mp.flows.context import JOBS, Context
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.on_start import ProcessValues
from pgflow_mp.flows.shapes import definition
from pgflow_mp.loading import finding, job_functions, shipping
from pgflow_mp.loading.targets import Target
from pgflow_mp.values import artifacts

_WORTH_TELLING: Final = 1.0  # seconds
_log: Final = logging.getLogger("pgflow_mp.on_start")

Execute = Callable[[bytes, "bytes | None", Context], tuple[int, bytes]]
"""(input, flow input, context) -> (Kind, body); see ``messages.Outcome``."""


class Runnable(Protocol):
    """Runs items of a step: ``flows.handlers.PreparedHandler``."""

    @property
    def wants_context(self) -> bool: ...

    @property
    def batch(self) -> int: ...

    @property
    def quick_output(self) -> handlers.Output: ...

    def failure(self, error: BaseException, task_index: int) -> tuple[int, bytes]: ...

    def execute(self, input: bytes, flow_input: bytes | None, ctx: Context) -> tuple[int, bytes]: ...

    def outputs(
        self, input: bytes, indexes: Sequence[int], flow_input: bytes | None, ctx: Context
    ) -> list[tuple[int, bytes]]: ...


class _NoStep:
    """Stands for a step that is not there: its items fail with these words."""

    wants_context: Final = False
    batch: Final = 0

    def __init__(self, flow: str, step: str) -> None:
        self._text = f'Step "{step}" does not exist in flow "{flow}"'

    def quick_output(self, input: bytes | msgspec.Raw, flow_input: bytes | None, ctx: Context) -> bytes:
        raise LookupError(self._text)

    def failure(self, error: BaseException, task_index: int) -> tuple[int, bytes]:
        return Kind.FAILED, self._text.encode()

    def execute(self, input: bytes, flow_input: bytes | None, ctx: Context) -> tuple[int, bytes]:
        return Kind.FAILED, self._text.encode()

    def outputs(
        self, input: bytes, indexes: Sequence[int], flow_input: bytes | None, ctx: Context
    ) -> list[tuple[int, bytes]]:
        return [(Kind.FAILED, self._text.encode()) for _ in indexes]


class Loadable(Protocol):
    """What to load; Setup is one."""

    @property
    def target(self) -> str: ...
    @property
    def flows(self) -> list[str]: ...
    @property
    def sys_path(self) -> list[str]: ...
    @property
    def main_path(self) -> str | None: ...
    @property
    def job(self) -> bool: ...
    @property
    def shipped(self) -> bytes: ...
    @property
    def contents(self) -> dict[str, bytes]: ...
    @property
    def handlers(self) -> list[str]: ...


def flows_of(target: Loadable, *, may_be_main: bool = False) -> dict[str, Flow]:
    """Import the target's flows, by slug. Raises whatever the import raises.

    ``may_be_main``: this process is ours, and a file may become its ``__main__`` (see ``load_flows``).
    """
    paths.extend(target.sys_path)
    if target.shipped:
        flow = shipping.unpack(target.shipped)
        return {JOBS if target.job else flow.slug: flow}
    if target.job:
        return {JOBS: job_functions.load(target.target, target.main_path)}
    return {
        flow.slug: flow
        for place in target.target.splitlines()
        for flow in finding.load_flows(
            _place(place, target), main_path=target.main_path, may_be_main=may_be_main
        )
        if not target.flows or flow.slug in target.flows
    }


def _place(text: str, setup: Loadable) -> Target:
    target = Target.parse(text)
    contents = setup.contents.get(target.file or "")
    return replace(target, contents=contents, handlers=tuple(setup.handlers))


def describe(flow: Flow) -> FlowInfo:
    """What the worker learns about a flow."""
    steps = [
        StepInfo(
            step.slug,
            step.step_type,
            list(step.dependencies),
            handlers.prepare(flow, step.slug).wants_flow_input,
            step.batch,
        )
        for step in flow.steps.values()
    ]
    shape = msgspec.json.encode(definition(flow))
    makes_artifacts = any(artifacts.mentions(return_type(step.handler)) for step in flow.steps.values())
    return FlowInfo(flow.slug, flow.queues, shape, steps, flow.artifacts, makes_artifacts)


def artifact_roots(setup: Setup, flows: dict[str, Flow]) -> artifacts.Roots:
    """Where the flows that a process executes keep their artifacts."""
    own = {slug: flow.artifacts for slug, flow in flows.items() if flow.artifacts is not None}
    return artifacts.Roots(setup.artifacts, own, setup.artifacts_beside, setup.installation)


class Prepared:
    """The functions that run the steps of some flows, each prepared once, and what these flows start with.

    Not thread-safe as far as start() and close() go.
    """

    def __init__(self, flows: dict[str, Flow]) -> None:
        self._flows = flows
        self._known: dict[tuple[str, str], Runnable] = {}
        self._values = {slug: ProcessValues(slug, flow.start_functions) for slug, flow in flows.items()}
        self.waiting = {slug for slug, values in self._values.items() if not values.started}
        """Flows whose on_start functions are to be called before their first item."""

    @property
    def endings(self) -> int:
        """on_start functions that have something to do at the end of this process."""
        return sum(values.endings for values in self._values.values())

    def start(self, flow_slug: str, announce: Callable[[str], None] = lambda name: None) -> None:
        """Call the on_start functions of a flow; ``announce`` is told the name of each before it is called.

        Raises OnStartFailed.
        """
        values = self._values[flow_slug]
        values.start(announce)
        self.waiting.discard(flow_slug)
        if (seconds := sum(values.seconds.values())) >= _WORTH_TELLING:
            each = ", ".join(f"{name} {spent:.1f} s" for name, spent in values.seconds.items())
            _log.info("on_start of flow %s took %.1f s: %s", flow_slug, seconds, each)

    def close(self) -> None:
        """Do what on_start functions have to do at the end, the last flow's first; what fails is logged."""
        for slug, values in reversed(self._values.items()):
            for failed in values.close():
                _log.warning("%s", failed)
            if not values.started:
                self.waiting.add(slug)
                self._known.clear()

    def of(self, flow_slug: str, step_slug: str) -> Runnable:
        """The functions of a step; for one that is not there some that fail with these words."""
        key = (flow_slug, step_slug)
        if key not in self._known:
            self._known[key] = self._prepare(flow_slug, step_slug)
        return self._known[key]

    def _prepare(self, flow_slug: str, step_slug: str) -> Runnable:
        flow = self._flows.get(flow_slug)
        step = flow.steps.get(step_slug) if flow is not None else None
        if flow is None or step is None:
            return _NoStep(flow_slug, step_slug)
        return handlers.prepare(flow, step_slug, self._values[flow_slug].values)


def error_text(error: BaseException) -> str:
    """An exception with its traceback, whatever its ``__str__`` does."""
    try:
        return "".join(traceback.format_exception(error)).strip()
    except Exception:  # noqa: BLE001 - a __str__ that raises
        return type(error).__name__
