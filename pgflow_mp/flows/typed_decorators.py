"""What type checkers see ``@flow.step(...)`` and ``@flow.array(...)`` to be.

Nothing of this is run. ``N`` is None where the output may be null, else Never. The overloads are the forms in
which a handler may take its input; pyright speaks of the last one of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Never, overload

from pgflow_mp.flows.context import Context
from pgflow_mp.flows.typed import (
    Elements,
    N,
    P,
    R,
    StepFunction,
    T,
    Takes,
    TakesContext,
    TakesFlowInput,
    TakesGivesArray,
    TakesGivesColumns,
    TakesNothing,
    TakesNothingGivesArray,
    TakesSecond,
    TakesSecondGivesArray,
    X,
)


class AnyStep(Generic[N]):
    """Of a step of which nothing is known that its parameters could be compared with."""

    @overload
    def __call__(self, handler: Callable[P, Iterator[X]], /) -> StepFunction[P, Iterator[X], list[X] | N]: ...
    @overload
    def __call__(self, handler: Callable[P, R], /) -> StepFunction[P, R, R | N]: ...
    def __call__(self, handler: Any, /) -> Any: ...


class RootStep(Generic[T, N]):
    """Of a step that receives the run's input, a T."""

    @overload
    def __call__(self, handler: TakesNothing[object, P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: TakesContext[Context, P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: TakesFlowInput[Never, P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: TakesSecond[T, P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: Takes[Context, P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: Takes[T, P, Iterator[X]], /) -> StepFunction[P, Iterator[X], list[X] | N]: ...
    @overload
    def __call__(self, handler: Takes[T, P, R], /) -> StepFunction[P, R, R | N]: ...
    def __call__(self, handler: Any, /) -> Any: ...


class AnyArray(Generic[N]):
    """Of an array step of which nothing is known that its parameters could be compared with."""

    @overload
    def __call__(self, handler: TakesGivesColumns[Never, P, R], /) -> StepFunction[P, R, list[Any] | N]: ...
    @overload
    def __call__(
        self, handler: TakesNothingGivesArray[object, P, R, X], /
    ) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesGivesArray[Never, P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(
        self, handler: Callable[P, Elements[X] | Iterator[X]], /
    ) -> StepFunction[P, Elements[X] | Iterator[X], list[X] | N]: ...
    def __call__(self, handler: Any, /) -> Any: ...


class RootArray(Generic[T, N]):
    """Of an array step that receives the run's input, a T."""

    @overload
    def __call__(
        self, handler: TakesNothingGivesArray[object, P, R, X], /
    ) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesSecondGivesArray[T, P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesGivesArray[Context, P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesGivesColumns[T, P, R], /) -> StepFunction[P, R, list[Any] | N]: ...
    @overload
    def __call__(self, handler: TakesGivesArray[T, P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    def __call__(self, handler: Any, /) -> Any: ...
