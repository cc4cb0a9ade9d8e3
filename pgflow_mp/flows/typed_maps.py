"""What type checkers see ``@flow.map(...)`` to be.

Nothing of this is run. ``B`` is int of a map with ``batch=``, ``L`` a number of one with ``tolerate=``, else
None. The overloads are the forms in which a handler may take its items; pyright speaks of the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Never, overload

from pgflow_mp.flows.failures import Failed
from pgflow_mp.flows.typed import (
    B_co,
    C,
    Columns,
    L_co,
    MapFunction,
    P,
    R,
    T,
    Takes,
    TakesColumns,
    TakesColumnsList,
    TakesList,
    TakesListSecond,
    TakesMembers,
    TakesSecond,
    TakesThird,
    Unsaid,
    X,
)


class AnyMapStep(Generic[B_co, L_co]):
    """Of a map over elements of which nothing is known."""

    @overload
    def __call__(
        self: AnyMapStep[None, None], handler: Callable[P, Iterator[X]], /
    ) -> MapFunction[P, Iterator[X], list[list[X]], object, list[X]]: ...
    @overload
    def __call__(
        self: AnyMapStep[None, None], handler: Callable[P, R], /
    ) -> MapFunction[P, R, list[R], object, R]: ...
    @overload
    def __call__(
        self: AnyMapStep[int, None], handler: TakesList[Never, P, R, X], /
    ) -> MapFunction[P, R, list[X], object, X]: ...
    @overload
    def __call__(
        self: AnyMapStep[int, None], handler: Callable[P, Iterable[X | Failed | BaseException]], /
    ) -> MapFunction[P, Iterable[X | Failed | BaseException], list[X], object, X]: ...
    @overload
    def __call__(
        self: AnyMapStep[int, None], handler: Callable[P, Columns], /
    ) -> MapFunction[P, Columns, list[Any], object, Any]: ...
    @overload
    def __call__(
        self: AnyMapStep[None, float], handler: Callable[P, Iterator[X]], /
    ) -> MapFunction[P, Iterator[X], list[list[X] | None], object, list[X]]: ...
    @overload
    def __call__(
        self: AnyMapStep[None, float], handler: Callable[P, R], /
    ) -> MapFunction[P, R, list[R | None], object, R]: ...
    @overload
    def __call__(
        self: AnyMapStep[int, float], handler: TakesList[Never, P, R, X], /
    ) -> MapFunction[P, R, list[X | None], object, X]: ...
    @overload
    def __call__(
        self: AnyMapStep[int, float], handler: Callable[P, Iterable[X | Failed | BaseException]], /
    ) -> MapFunction[P, Iterable[X | Failed | BaseException], list[X | None], object, X]: ...
    @overload
    def __call__(
        self: AnyMapStep[int, float], handler: Callable[P, Columns], /
    ) -> MapFunction[P, Columns, list[Any], object, Any]: ...
    def __call__(self, handler: Any, /) -> Any: ...


class MapStep(Generic[T, B_co, L_co]):
    """Of a map over elements T."""

    @overload
    def __call__(
        self: MapStep[Unsaid, None, None], handler: Callable[P, Iterator[X]], /
    ) -> MapFunction[P, Iterator[X], list[list[X]], object, list[X]]: ...
    @overload
    def __call__(
        self: MapStep[Unsaid, None, None], handler: Callable[P, R], /
    ) -> MapFunction[P, R, list[R], object, R]: ...
    @overload
    def __call__(
        self: MapStep[T, None, None], handler: TakesMembers[Never, P, R], /
    ) -> MapFunction[P, R, list[R], T, R]: ...
    @overload
    def __call__(
        self: MapStep[T, None, None], handler: TakesThird[T, P, R], /
    ) -> MapFunction[P, R, list[R], T, R]: ...
    @overload
    def __call__(
        self: MapStep[T, None, None], handler: TakesSecond[T, P, R], /
    ) -> MapFunction[P, R, list[R], T, R]: ...
    @overload
    def __call__(
        self: MapStep[T, None, None], handler: TakesColumns[object, C, P, R], /
    ) -> MapFunction[P, R, list[R], T, R]: ...
    @overload
    def __call__(
        self: MapStep[T, None, None], handler: Takes[T, P, Iterator[X]], /
    ) -> MapFunction[P, Iterator[X], list[list[X]], T, list[X]]: ...
    @overload
    def __call__(
        self: MapStep[T, None, None], handler: Takes[T, P, R], /
    ) -> MapFunction[P, R, list[R], T, R]: ...
    @overload
    def __call__(
        self: MapStep[Unsaid, int, None], handler: Callable[P, Iterable[X | Failed | BaseException]], /
    ) -> MapFunction[P, Iterable[X | Failed | BaseException], list[X], object, X]: ...
    @overload
    def __call__(
        self: MapStep[T, int, None], handler: TakesListSecond[list[T], P, R, X], /
    ) -> MapFunction[P, R, list[X], T, X]: ...
    @overload
    def __call__(
        self: MapStep[T, int, None], handler: TakesColumnsList[object, C, P, R, X], /
    ) -> MapFunction[P, R, list[X], T, X]: ...
    @overload
    def __call__(
        self: MapStep[T, int, None], handler: TakesList[list[T], P, R, X], /
    ) -> MapFunction[P, R, list[X], T, X]: ...
    @overload
    def __call__(
        self: MapStep[Unsaid, None, float], handler: Callable[P, Iterator[X]], /
    ) -> MapFunction[P, Iterator[X], list[list[X] | None], object, list[X]]: ...
    @overload
    def __call__(
        self: MapStep[Unsaid, None, float], handler: Callable[P, R], /
    ) -> MapFunction[P, R, list[R | None], object, R]: ...
    @overload
    def __call__(
        self: MapStep[T, None, float], handler: TakesMembers[Never, P, R], /
    ) -> MapFunction[P, R, list[R | None], T, R]: ...
    @overload
    def __call__(
        self: MapStep[T, None, float], handler: TakesThird[T, P, R], /
    ) -> MapFunction[P, R, list[R | None], T, R]: ...
    @overload
    def __call__(
        self: MapStep[T, None, float], handler: TakesSecond[T, P, R], /
    ) -> MapFunction[P, R, list[R | None], T, R]: ...
    @overload
    def __call__(
        self: MapStep[T, None, float], handler: TakesColumns[object, C, P, R], /
    ) -> MapFunction[P, R, list[R | None], T, R]: ...
    @overload
    def __call__(
        self: MapStep[T, None, float], handler: Takes[T, P, Iterator[X]], /
    ) -> MapFunction[P, Iterator[X], list[list[X] | None], T, list[X]]: ...
    @overload
    def __call__(
        self: MapStep[T, None, float], handler: Takes[T, P, R], /
    ) -> MapFunction[P, R, list[R | None], T, R]: ...
    @overload
    def __call__(
        self: MapStep[Unsaid, int, float], handler: Callable[P, Iterable[X | Failed | BaseException]], /
    ) -> MapFunction[P, Iterable[X | Failed | BaseException], list[X | None], object, X]: ...
    @overload
    def __call__(
        self: MapStep[T, int, float], handler: TakesListSecond[list[T], P, R, X], /
    ) -> MapFunction[P, R, list[X | None], T, X]: ...
    @overload
    def __call__(
        self: MapStep[T, int, float], handler: TakesColumnsList[object, C, P, R, X], /
    ) -> MapFunction[P, R, list[X | None], T, X]: ...
    @overload
    def __call__(
        self: MapStep[T, int, float], handler: TakesList[list[T], P, R, X], /
    ) -> MapFunction[P, R, list[X | None], T, X]: ...
    def __call__(self, handler: Any, /) -> Any: ...
