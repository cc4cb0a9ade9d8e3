"""What is made once in each process that executes items, for all of them: a model, a connection, a table.

    @flow.on_start
    def model() -> Model:          # or a generator: what follows its yield is done when the process ends
        return Model.load("weights.bin")

    @flow.map
    def infer(item: str, model: Model) -> str: ...

Handlers receive what it returned by the name of the parameter, as it is. A function may ask for what those
defined before it have returned.
"""

from __future__ import annotations

import functools
import inspect
import keyword
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.errors import FlowDefinitionError, OnStartFailed
from pgflow_mp.flows.binding import EMPTY, Argument, Source
from pgflow_mp.flows.checks import return_type
from pgflow_mp.flows.failures import describe_exception
from pgflow_mp.flows.validation import check_handler
from pgflow_mp.flows.wrappers import calling_of

if TYPE_CHECKING:
    from pgflow_mp.flows.steps import StepDefinition

_OURS: Final = ("ctx", "context", "flow_input")
_NUMBERS: Final = (bool, int, float, complex)
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class StartFunction:
    """``positional`` and ``named`` are the names of what it asks for; ``ends``: something is to be done at
    the end of the process. ``returns``: the type of its value as far as it says so, else EMPTY.
    """

    name: str
    function: Callable[..., object]
    positional: tuple[str, ...]
    named: tuple[str, ...]
    ends: bool
    returns: object = EMPTY


def define(
    flow_slug: str,
    name: object,
    function: object,
    known: Mapping[str, StartFunction],
    steps: Mapping[str, StepDefinition],
    names: Mapping[str, Any],
) -> StartFunction:
    """Check a function against what the flow has by now; ``names`` are in sight of its annotations.

    Raises FlowDefinitionError.
    """
    where = f'flow "{flow_slug}"'
    checked = _check_function(function, where)
    slug = _check_name(name if name is not None else getattr(function, "__name__", None), where)
    what = f'on_start function "{slug}" of {where}'
    if slug in known:
        raise FlowDefinitionError(f"{what} already exists", hint="Give one of them another name.")
    if slug in steps:
        raise FlowDefinitionError(
            f"{what} has the name of a step",
            hint="A parameter of this name would mean two things: give one of them another name.",
        )
    _check_steps_before(what, slug, steps)
    positional, named = _needs(checked, what, known)
    ends = inspect.isgeneratorfunction(_innermost(checked))
    return StartFunction(slug, checked, positional, named, ends, _value_type(checked, names, ends=ends))


def check_step(
    slug: str, arguments: Sequence[Argument], where: str, known: Mapping[str, StartFunction]
) -> None:
    """Refuse a step that cannot be told from a value, or whose parameter expects something else than it."""
    if slug in known:
        raise FlowDefinitionError(
            f"{where} has the name of an on_start function",
            hint="A parameter of this name would mean two things: give one of them another name.",
        )
    for argument in arguments:
        if argument.source is not Source.VALUE:
            continue
        returned = known[argument.of].returns
        if _differ(argument.annotation, returned):
            raise FlowDefinitionError(
                f'Handler of {where}: parameter "{argument.name}" receives what the on_start function '
                f'"{argument.of}" returns, of type {getattr(returned, "__name__", returned)}, '
                f"yet it is annotated {inspect.formatannotation(argument.annotation)}",
                hint="Rename the parameter, if it is to receive something else.",
            )


class ProcessValues:
    """What the functions of one flow have returned in this process. Not thread-safe."""

    def __init__(self, flow_slug: str, functions: Mapping[str, StartFunction]) -> None:
        self._flow = flow_slug
        self._functions = functions
        self._endings: list[tuple[str, Callable[[], None]]] = []
        self.values: dict[str, Any] = {}
        """By name."""
        self.seconds: dict[str, float] = {}
        """What each of them took."""
        self.started = not functions

    @property
    def endings(self) -> int:
        """Functions that have something to do at the end."""
        return len(self._endings)

    def take(self, given: Mapping[str, Any]) -> None:
        """Values in the place of what functions of these names would return. Raises FlowDefinitionError."""
        for name in given:
            if name not in self._functions:
                known = f"It has {', '.join(self._functions)}." if self._functions else "It has none."
                raise FlowDefinitionError(
                    f'Flow "{self._flow}" has no on_start function "{name}"', hint=known
                )
        self.values.update(given)

    def start(self, announce: Callable[[str], None] = lambda name: None) -> Mapping[str, Any]:
        """Call those functions that have not been; ``announce`` is told the name of each before it is.

        Raises OnStartFailed, what was made undone.
        """
        for name, made in self._functions.items():
            if name in self.values:
                continue
            announce(name)
            began = time.perf_counter()
            try:
                self.values[name] = self._call(made)
            except BaseException as error:
                failed = failure(self._flow, name, error)
                self.close()
                raise failed from error
            self.seconds[name] = time.perf_counter() - began
        self.started = True
        return self.values

    def close(self) -> list[OnStartFailed]:
        """Do what is to be done at the end, the last one's first. Repeatable; what failed, nothing raised."""
        failed: list[OnStartFailed] = []
        while self._endings:
            name, end = self._endings.pop()
            try:
                end()
            except BaseException as error:  # noqa: BLE001 - the others are to come to their end, too
                failed.append(failure(self._flow, name, error, verb="failed at the end"))
        self.values.clear()
        self.started = not self._functions
        return failed

    def _call(self, made: StartFunction) -> Any:
        result = made.function(
            *[self.values[name] for name in made.positional],
            **{name: self.values[name] for name in made.named},
        )
        if made.ends and isinstance(result, GeneratorType):
            return self._begin(made.name, result)
        if made.ends and isinstance(result, AbstractContextManager):  # @contextlib.contextmanager
            value = result.__enter__()
            self._endings.append((made.name, lambda: result.__exit__(None, None, None)))
            return value
        return result

    def _begin(self, name: str, generator: Iterator[Any]) -> Any:
        try:
            value = next(generator)
        except StopIteration:
            raise RuntimeError("it has ended without a yield") from None
        self._endings.append((name, lambda: _finish(generator)))
        return value


def failure(flow: str, name: str, error: BaseException, *, verb: str = "failed") -> OnStartFailed:
    """The error that names the function, on its first line and with the place; its traceback follows."""
    what = f'on_start function "{name}" of flow "{flow}" {verb}'
    return OnStartFailed(f"{what}: {describe_exception(error).decode('utf-8', 'replace')}")


def _finish(generator: Iterator[Any]) -> None:
    for _ in generator:
        raise RuntimeError("it has yielded more than once")


def _check_function(function: object, where: str) -> Callable[..., Any]:
    if not callable(function):
        raise FlowDefinitionError(
            f"on_start of {where} takes a function, not {type(function).__name__}",
            hint='Write @flow.on_start above it, or call: flow.on_start("name", function)',
        )
    return check_handler(function, f"on_start of {where}")


def _check_name(name: object, where: str) -> str:
    if not isinstance(name, str) or name == "<lambda>":
        raise FlowDefinitionError(
            f"An on_start function of {where} has no name",
            hint='Give the name of the parameters that receive its value: flow.on_start("name", function)',
        )
    if not name.isidentifier() or keyword.iskeyword(name):
        raise FlowDefinitionError(
            f"on_start of {where}: no parameter can be called {name!r}",
            hint="Give a name that a parameter of a function can have.",
        )
    if name in _OURS:
        raise FlowDefinitionError(
            f'on_start of {where}: a parameter "{name}" receives something else',
            hint=f"Give the function another name; {', '.join(_OURS)} are taken.",
        )
    return name


def _check_steps_before(what: str, name: str, steps: Mapping[str, StepDefinition]) -> None:
    for step in steps.values():
        try:
            parameters = calling_of(step.handler).parameters
        except (TypeError, ValueError):  # a builtin
            continue
        if any(parameter.name == name and parameter.kind not in _VARIADIC for parameter in parameters):
            raise FlowDefinitionError(
                f'{what} is defined after step "{step.slug}", whose handler has a parameter of this name',
                hint="Define it before the steps that use its value, or give one of them another name.",
            )


def _needs(
    function: Callable[..., Any], what: str, known: Mapping[str, StartFunction]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not tell
        return (), ()
    positional: list[str] = []
    named: list[str] = []
    gap = False
    for parameter in parameters:
        by_position = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
        if parameter.kind in _VARIADIC:
            continue
        if parameter.name in known and not (by_position and gap):
            (positional if by_position else named).append(parameter.name)
        elif parameter.default is EMPTY:
            others = f"values of those before it: {', '.join(known)}" if known else "no values yet"
            raise FlowDefinitionError(
                f'{what}: parameter "{parameter.name}" can never be supplied',
                hint=f"It runs before any item, so that there are {others}.",
            )
        gap = gap or (by_position and parameter.name not in known)
    return tuple(positional), tuple(named)


def _innermost(function: Any) -> Any:
    """What is called in the end, whatever decorators and partials are around it."""
    found = inspect.unwrap(function)
    while isinstance(found, functools.partial):
        found = inspect.unwrap(found.func)
    return found


def _value_type(function: Any, names: Mapping[str, Any], *, ends: bool) -> Any:
    wanted = return_type(_innermost(function), names)
    if ends and wanted is not EMPTY:
        return next(iter(typing.get_args(wanted)), EMPTY)
    return wanted


def _differ(wanted: Any, returned: Any) -> bool:
    """Whether no value can be of both types; only what is plain to see counts."""
    if EMPTY in (wanted, returned):
        return False
    if type(wanted) is not type or type(returned) is not type:  # nor what has a metaclass, as protocols do
        return False
    if wanted in _NUMBERS and returned in _NUMBERS:
        return False
    return not (issubclass(wanted, returned) or issubclass(returned, wanted))
