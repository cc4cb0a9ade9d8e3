"""What type checkers see ``@flow.step(...)``, ``@flow.array(...)`` and ``@flow.map(...)`` to be.

Nothing of this is run. ``N`` is None where the output, or an item of it, may be null, else Never. The
overloads are the forms in which a handler may take its input; errors speak of the last one of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Never, overload

from pgflow_mp.flows.context import Context
from pgflow_mp.flows.failures import Failed
from pgflow_mp.flows.typed import (
    C,
    Columns,
    D,
    Elements,
    MapFunction,
    N,
    P,
    R,
    StepFunction,
    T,
    Takes,
    TakesFlowInput,
    TakesGivesArray,
    TakesGivesColumns,
    TakesList,
    TakesListSecond,
    TakesMembers,
    TakesNothing,
    TakesNothingGivesArray,
    TakesSecond,
    TakesSecondGivesArray,
    TakesThird,
    Unsaid,
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
    def __call__(self, handler: TakesNothing[P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: TakesSecond[T, P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: Takes[Context, P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: Takes[T, P, Iterator[X]], /) -> StepFunction[P, Iterator[X], list[X] | N]: ...
    @overload
    def __call__(self, handler: Takes[T, P, R], /) -> StepFunction[P, R, R | N]: ...
    def __call__(self, handler: Any, /) -> Any: ...


class ChildStep(Generic[D, N]):
    """Of a step all of whose parents give a D, which one of its parameters has to take."""

    @overload
    def __call__(
        self: ChildStep[Unsaid, N], handler: Callable[P, Iterator[X]], /
    ) -> StepFunction[P, Iterator[X], list[X] | N]: ...
    @overload
    def __call__(self: ChildStep[Unsaid, N], handler: Callable[P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: TakesNothing[P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: TakesFlowInput[P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: Takes[Context, P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: Takes[dict[str, Any], P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: TakesThird[D, P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: TakesSecond[D, P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: Takes[C, P, R], /) -> StepFunction[P, R, R | N]: ...
    @overload
    def __call__(self, handler: Takes[D, P, Iterator[X]], /) -> StepFunction[P, Iterator[X], list[X] | N]: ...
    @overload
    def __call__(self, handler: Takes[D, P, R], /) -> StepFunction[P, R, R | N]: ...
    def __call__(self, handler: Any, /) -> Any: ...


class AnyArray(Generic[N]):
    """Of an array step of which nothing is known that its parameters could be compared with."""

    @overload
    def __call__(self, handler: TakesGivesColumns[Never, P, R], /) -> StepFunction[P, R, list[Any] | N]: ...
    @overload
    def __call__(self, handler: TakesNothingGivesArray[P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
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
    def __call__(self, handler: TakesNothingGivesArray[P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesSecondGivesArray[T, P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesGivesArray[Context, P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesGivesColumns[T, P, R], /) -> StepFunction[P, R, list[Any] | N]: ...
    @overload
    def __call__(self, handler: TakesGivesArray[T, P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    def __call__(self, handler: Any, /) -> Any: ...


class ChildArray(Generic[D, N]):
    """Of an array step all of whose parents give a D, which one of its parameters has to take."""

    @overload
    def __call__(
        self: ChildArray[Unsaid, N], handler: TakesGivesColumns[Never, P, R], /
    ) -> StepFunction[P, R, list[Any] | N]: ...
    @overload
    def __call__(
        self: ChildArray[Unsaid, N], handler: TakesNothingGivesArray[P, R, X], /
    ) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(
        self: ChildArray[Unsaid, N], handler: TakesGivesArray[Never, P, R, X], /
    ) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(
        self: ChildArray[Unsaid, N], handler: Callable[P, Elements[X] | Iterator[X]], /
    ) -> StepFunction[P, Elements[X] | Iterator[X], list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesNothingGivesArray[P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesSecondGivesArray[D, P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesGivesArray[Context, P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(
        self, handler: TakesGivesArray[dict[str, Any], P, R, X], /
    ) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesGivesArray[C, P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    @overload
    def __call__(self, handler: TakesGivesColumns[D, P, R], /) -> StepFunction[P, R, list[Any] | N]: ...
    @overload
    def __call__(self, handler: TakesGivesArray[D, P, R, X], /) -> StepFunction[P, R, list[X] | N]: ...
    def __call__(self, handler: Any, /) -> Any: ...


class AnyMapStep(Generic[N]):
    """Of a map over elements of which nothing is known."""

    @overload
    def __call__(
        self, handler: Callable[P, Iterator[X]], /
    ) -> MapFunction[P, Iterator[X], list[list[X] | N], object, list[X]]: ...
    @overload
    def __call__(self, handler: Callable[P, R], /) -> MapFunction[P, R, list[R | N], object, R]: ...
    def __call__(self, handler: Any, /) -> Any: ...


class AnyBatchStep(Generic[N]):
    """Of a map whose handler takes lists of elements of which nothing is known."""

    @overload
    def __call__(
        self, handler: TakesList[Never, P, R, X], /
    ) -> MapFunction[P, R, list[X | N], object, X]: ...
    @overload
    def __call__(
        self, handler: Callable[P, Iterable[X | Failed | BaseException]], /
    ) -> MapFunction[P, Iterable[X | Failed | BaseException], list[X | N], object, X]: ...
    @overload
    def __call__(
        self, handler: Callable[P, Columns], /
    ) -> MapFunction[P, Columns, list[Any], object, Any]: ...
    def __call__(self, handler: Any, /) -> Any: ...


class MapStep(Generic[T, N]):
    """Of a map over elements T."""

    @overload
    def __call__(
        self: MapStep[Unsaid, N], handler: Callable[P, Iterator[X]], /
    ) -> MapFunction[P, Iterator[X], list[list[X] | N], object, list[X]]: ...
    @overload
    def __call__(
        self: MapStep[Unsaid, N], handler: Callable[P, R], /
    ) -> MapFunction[P, R, list[R | N], object, R]: ...
    @overload
    def __call__(self, handler: TakesMembers[P, R], /) -> MapFunction[P, R, list[R | N], T, R]: ...
    @overload
    def __call__(self, handler: TakesThird[T, P, R], /) -> MapFunction[P, R, list[R | N], T, R]: ...
    @overload
    def __call__(self, handler: TakesSecond[T, P, R], /) -> MapFunction[P, R, list[R | N], T, R]: ...
    @overload
    def __call__(self, handler: Takes[C, P, R], /) -> MapFunction[P, R, list[R | N], T, R]: ...
    @overload
    def __call__(
        self, handler: Takes[T, P, Iterator[X]], /
    ) -> MapFunction[P, Iterator[X], list[list[X] | N], T, list[X]]: ...
    @overload
    def __call__(self, handler: Takes[T, P, R], /) -> MapFunction[P, R, list[R | N], T, R]: ...
    def __call__(self, handler: Any, /) -> Any: ...


class BatchStep(Generic[T, N]):
    """Of a map whose handler takes lists of T, and answers each with as many results."""

    @overload
    def __call__(
        self: BatchStep[Unsaid, N], handler: Callable[P, Iterable[X | Failed | BaseException]], /
    ) -> MapFunction[P, Iterable[X | Failed | BaseException], list[X | N], object, X]: ...
    @overload
    def __call__(
        self, handler: TakesListSecond[list[T], P, R, X], /
    ) -> MapFunction[P, R, list[X | N], T, X]: ...
    @overload
    def __call__(self, handler: TakesList[C, P, R, X], /) -> MapFunction[P, R, list[X | N], T, X]: ...
    @overload
    def __call__(self, handler: TakesList[list[T], P, R, X], /) -> MapFunction[P, R, list[X | N], T, X]: ...
    def __call__(self, handler: Any, /) -> Any: ...
