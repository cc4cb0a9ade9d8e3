"""The DSL: a Flow is a graph of steps, each one a plain Python function (contract: worker section 6).

    flow = Flow("word_count", max_attempts=3)

    @flow.map                          # one task per element of the run's input, an array
    def count(line: str) -> int:
        return len(line.split())

    @flow.step(depends_on=[count])     # parameters named after parents receive their outputs
    def total(count: list[int]) -> int:
        return sum(count)

Everything is checked where it is written: a wrong definition raises FlowDefinitionError at import.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping
from importlib import import_module
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from pgflow_mp.flows import handles, limits, slugs, storage, validation
from pgflow_mp.flows import on_start as starting
from pgflow_mp.flows.agreement import input_of
from pgflow_mp.flows.defining import calling_frame
from pgflow_mp.flows.finished_item import FinishedItem
from pgflow_mp.flows.map_decorators import MapDecorators
from pgflow_mp.flows.options import FLOW
from pgflow_mp.flows.options import names as option_names
from pgflow_mp.flows.step_decorators import StepDecorators
from pgflow_mp.flows.steps import FlowOptions, StepDefinition, Steps, build_step
from pgflow_mp.flows.typed import In
from pgflow_mp.values.json_values import Json

if TYPE_CHECKING:
    from pgflow_mp.flows.run_options import ImapOptions
    from pgflow_mp.flows.shapes import FlowShape
    from pgflow_mp.flows.typed import Elements, HasInput, MapFunction, PlainFunction, R, StepLike, T, X

__all__ = ["Flow", "StepDefinition"]

F = TypeVar("F", bound=Callable[..., object])


class Flow(StepDecorators[In], MapDecorators[In]):
    """A directed acyclic graph of steps.

    ``slug`` names the flow and its queue: at most 47 letters, digits and underscores. ``max_attempts``
    (at least 1, default 3), ``base_delay`` (seconds, at least 1, default 5) and ``timeout`` (seconds,
    at least 3, default 60) hold for every step that does not set its own. ``queues="step"`` gives each
    step a queue of its own, named ``<flow>__<step>``, instead of one for all of them. ``storage`` holds for
    every map that does not set its own: "tasks" or "ranges" (docs/ranges.md). ``nan``: what NaN in a
    result, or in the run's input, is: "error" or "null". ``limit``, ``rate`` and ``burst`` hold for all
    items of the flow together (docs/limits.md). ``former_slugs=True`` lets slugs begin or end with an
    underscore or have two in a row, for a flow that a database has from before this was refused. Raises
    FlowDefinitionError.
    """

    def __init__(
        self,
        slug: str,
        *,
        queues: Literal["flow", "step"] = "flow",
        former_slugs: bool = False,
        **options: Unpack[FlowOptions],
    ) -> None:
        former = slugs.check_former_slugs(former_slugs, queues)
        self.slug: str = slugs.check_flow_slug(slug, former=former)
        self.queues: Literal["flow", "step"] = slugs.check_queues(queues, self.slug)
        where = f'Flow "{self.slug}"'
        known = ("queues", "former_slugs", *option_names(FLOW))
        validation.check_unknown([name for name in options if name not in known], known, where)
        self.options: Mapping[str, int] = MappingProxyType(validation.check_options(options, where))
        self.limits: Mapping[str, int | float] = limits.check_limits(options, where)
        """Limits of the flow as a whole, by the parameters of ``pgflow.define_limit``."""
        self._steps = Steps(
            self.slug,
            self.queues,
            former_slugs=former,
            storage=storage.check_storage(options.get("storage"), where),
            nan=validation.check_nan(options.get("nan"), where),
        )
        self.artifacts: str | None = validation.check_artifacts(options.get("artifacts"), where)
        """Where files that the steps make are kept: an absolute path, or a URL; None: as the worker says."""
        caller = calling_frame()
        self.module: str = caller.f_globals.get("__name__", "__main__")
        """``__name__`` of the module that made the flow."""
        self.file: str | None = caller.f_globals.get("__file__")
        """``__file__`` of that module; None in a notebook or at a prompt."""
        self.is_data = False
        """Whether it was made of data: other processes make it of the same, and import its functions."""

    @property
    def steps(self) -> Mapping[str, StepDefinition]:
        """The steps by slug in definition order, read-only. An unknown slug raises FlowNotFound."""
        return MappingProxyType(self._steps)

    @overload
    def on_start(self, function: F, /) -> F: ...

    @overload
    def on_start(self, name: str, /) -> Callable[[F], F]: ...

    @overload
    def on_start(self, name: str, function: Callable[..., object], /) -> Flow: ...

    def on_start(self, name: Any, function: Any = None, /) -> Any:
        """Have a function called once in each process that executes items of this flow, before the first one.

        Handlers receive what it returned by parameters of its name, as it is; so do functions of this kind
        that are defined after it. A generator yields its value once; what follows is done when the process
        ends. An item's timeout does not run meanwhile. Usable as ``@flow.on_start``,
        ``@flow.on_start("name")``, and ``flow.on_start("name", function)``, before the steps that use it.
        """
        if callable(name) and function is None:
            self._add_start(None, name, calling_frame())
            return name
        if function is not None:
            self._add_start(name, function, calling_frame())
            return self

        def decorate(decorated: F) -> F:
            self._add_start(name, decorated, calling_frame())
            return decorated

        return decorate

    @property
    def start_functions(self) -> Mapping[str, starting.StartFunction]:
        """What on_start was given, by name in definition order, read-only."""
        return MappingProxyType(self._steps.on_start)

    @overload
    def imap(
        self: HasInput[Elements[T]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        step: MapFunction[..., object, object, R, X],
        ordered: bool = True,
        keep: bool = True,
        **options: Unpack[ImapOptions],
    ) -> Generator[FinishedItem[R, X], None, None]: ...

    @overload
    def imap(
        self: HasInput[Elements[T]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        step: str | PlainFunction | None = None,
        ordered: bool = True,
        keep: bool = True,
        **options: Unpack[ImapOptions],
    ) -> Generator[FinishedItem[Json, object], None, None]: ...

    @overload
    def imap(
        self,
        items: Iterable[object] | AsyncIterable[object],
        *,
        params: Mapping[str, object],
        step: MapFunction[..., object, object, R, X],
        ordered: bool = True,
        keep: bool = True,
        **options: Unpack[ImapOptions],
    ) -> Generator[FinishedItem[R, X], None, None]: ...

    @overload
    def imap(
        self,
        items: Iterable[object] | AsyncIterable[object],
        *,
        params: Mapping[str, object],
        step: str | PlainFunction | None = None,
        ordered: bool = True,
        keep: bool = True,
        **options: Unpack[ImapOptions],
    ) -> Generator[FinishedItem[Json, object], None, None]: ...

    def imap(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        step: StepLike | None = None,
        ordered: bool = True,
        keep: bool = True,
        **options: Any,
    ) -> Generator[FinishedItem[Any, Any], None, None]:
        """Run the flow over ``items`` here, on all cores, and yield each item as it ends, while others run.

            for item in flow.imap(items, workers=4):
                print(item.index, item.input, item.output)

        The items are those of the map ``step``, if it is not the flow's only or last one; each has index,
        input, output (converted as of :func:`pgflow_mp.run`; if ``step`` is a function the input, too),
        error, seconds and status, "failed" where it failed for good. They come in the order of ``items``,
        or, if not ``ordered``, as they end. All are stored first, and so is what comes out: memory stays the
        same, and the work never waits for who reads. The run begins with the first ``next()``; leaving the
        loop before its end cancels it. With ``keep=False`` nothing is left of it in the database then,
        however it ended. ``options`` are those of run(): dsn, data_dir, workers, timeout, params, run_id,
        executor and so on; and so are the errors: RunFailed after the last item, WaitTimeout,
        KeyboardInterrupt, after which the run can be resumed if it is kept; InputError and FlowNotFound at
        once.
        """
        streaming = import_module("pgflow_mp.client.streaming")  # a flow needs no database until then
        found: Generator[FinishedItem[Any, Any], None, None] = streaming.imap(
            self, items, step=step, ordered=ordered, keep=keep, **options
        )
        return found

    def shape(self) -> FlowShape:
        """What the start-up check compares with the database (contract: worker section 6.1)."""
        from pgflow_mp.flows.shapes import shape

        return shape(self)

    @classmethod
    def from_shape(cls, shape: Mapping[str, object], *, handlers: Iterable[str] | str = ()) -> Flow:
        """The flow that a mapping describes, as a flow file does (docs/flow-files.md).

        Its handlers are functions, or import paths, ``module:function``, that are on the list ``handlers``:
        ``module``, ``module:function`` or ``package.*``. Nothing else is imported. Raises
        FlowDefinitionError, FlowNotFound for what is not there, ConfigError for the list.
        """
        caller = calling_frame().f_globals
        flow: Flow = import_module("pgflow_mp.loading.flow_files").of_shape(shape, handlers)
        flow.module, flow.file = caller.get("__name__", "__main__"), caller.get("__file__")
        return flow

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, handlers: Iterable[str] | str = ()) -> Flow:
        """The flow that a file of JSON or YAML describes, with ``handlers`` as in from_shape().

        Raises FlowFileError with file and line, FlowNotFound, ConfigError.
        """
        flow: Flow = import_module("pgflow_mp.loading.flow_files").of_file(path, handlers)
        return flow

    def to_json(self) -> str:
        """The flow as JSON, with its functions by import path: from_shape() makes an equal flow of it.

        Raises FlowDefinitionError for a function that has none: a lambda, a method, one in a function.
        """
        from pgflow_mp.flows.exporting import to_json

        return to_json(self)

    def to_sql(self) -> str:
        """The statements that create this flow, one a line (contract: worker section 6.2).

        They say of storage what the code says; ``python -m pgflow_mp compile`` adds what is implied.
        """
        from pgflow_mp.flows.shapes import to_sql

        return to_sql(self)

    @property
    def nulls(self) -> bool:
        """Whether NaN is null where no step says otherwise."""
        return self._steps.nan == "null"

    def __repr__(self) -> str:
        return f"Flow({self.slug!r}, steps=[{', '.join(self._steps)}])"

    def _add(self, kind: str, slug: Any, handler: Any, options: dict[str, Any], caller: FrameType) -> None:
        step = build_step(self._steps, kind, slug, handler, options, caller, input_of(self))
        self._steps.add(step)
        handles.remember(self, step)

    def _add_start(self, name: Any, function: Any, caller: FrameType) -> None:
        names = {} if caller.f_locals is caller.f_globals else caller.f_locals
        found = starting.define(self.slug, name, function, self._steps.on_start, self._steps, names)
        self._steps.on_start[found.name] = found
