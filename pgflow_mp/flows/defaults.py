"""Parameters that say by their default what they receive, so that a type checker compares the two:

    @flow.step
    def total(counts: list[int] = output_of(count), request: Request = input_of(flow)) -> int: ...

At run time a default is a note of what it was made of, which binding reads when the step is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, overload

from pgflow_mp.flows.typed import In, StepFunction, T
from pgflow_mp.flows.wrappers import calling_of

if TYPE_CHECKING:
    from pgflow_mp.flows.flow import Flow
    from pgflow_mp.flows.typed import PlainFunction


@dataclass(frozen=True, slots=True)
class AskedDefault:
    """The default of a parameter that receives something else: ``word`` is the function that made it."""

    word: str
    of: Any

    def __repr__(self) -> str:
        return f"{self.word}({getattr(self.of, '__name__', None) or getattr(self.of, 'slug', self.of)})"

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(
            f"{self!r} is what a flow gives: a function that is called without it has to be given it"
        )

    __iter__ = __len__ = __getitem__ = __add__ = __radd__ = __bool__ = __call__ = _refuse


@overload
def output_of(step: StepFunction[..., object, T], /) -> T: ...
@overload
def output_of(step: str | PlainFunction, /) -> Any: ...
def output_of(step: Any, /) -> Any:
    """As a default: the parameter receives the output of this step, which becomes a parent of its own.

    ``step`` is a decorated function, or a slug, of which a type checker knows nothing. Of a map it is the
    list of its results. A parent that was skipped gives None.
    """
    return AskedDefault("output_of", step)


def input_of(flow: Flow[In], /) -> In:
    """As a default: the parameter receives the run's input."""
    made: Any = AskedDefault("input_of", flow)
    return made  # type: ignore[no-any-return]


@overload
def value_of(function: Callable[..., Iterator[T]], /) -> T: ...
@overload
def value_of(function: Callable[..., T], /) -> T: ...
@overload
def value_of(function: str, /) -> Any: ...
def value_of(function: Any, /) -> Any:
    """As a default: the parameter receives what this on_start function has returned, or yielded."""
    return AskedDefault("value_of", function)


def asked_by(handler: Callable[..., Any]) -> Mapping[str, AskedDefault]:
    """The parameters of a handler that say by their default what they receive."""
    is_bare = type(handler) is FunctionType and not handler.__dict__  # nothing was put around it
    if is_bare and handler.__defaults__ is None and handler.__kwdefaults__ is None:
        return {}
    try:
        parameters = calling_of(handler).parameters
    except (TypeError, ValueError):  # a builtin
        return {}
    return {each.name: each.default for each in parameters if isinstance(each.default, AskedDefault)}
