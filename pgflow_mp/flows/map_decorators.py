"""``map`` of a flow, as type checkers see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from pgflow_mp.flows.defining import Defining
from pgflow_mp.flows.steps import MapOptions, OtherMapOptions
from pgflow_mp.flows.typed import In, MapFunction, P, R, StepFunction, T, X

if TYPE_CHECKING:
    from pgflow_mp.flows.typed import (
        B,
        C,
        Elements,
        FitsFlowItems,
        HasInput,
        L,
        PlainFunction,
        Takes,
        TakesColumns,
        TakesSecond,
        Unsaid,
    )
    from pgflow_mp.flows.typed_maps import AnyMapStep, MapStep


class MapDecorators(Defining[In]):
    """``map`` of a flow whose runs are given an In."""

    @overload
    def map(
        self,
        slug: str | None = None,
        *,
        over: StepFunction[..., object, Elements[T]],
        batch: B = ...,
        tolerate: L = ...,
        **options: Unpack[OtherMapOptions],
    ) -> MapStep[T, B, L]: ...
    @overload
    def map(
        self: HasInput[Unsaid],
        slug: str | None = None,
        *,
        over: None = None,
        batch: B = ...,
        tolerate: L = ...,
        **options: Unpack[OtherMapOptions],
    ) -> AnyMapStep[B, L]: ...
    @overload
    def map(
        self,
        slug: str | None = None,
        *,
        over: str | PlainFunction,
        batch: B = ...,
        tolerate: L = ...,
        **options: Unpack[OtherMapOptions],
    ) -> AnyMapStep[B, L]: ...
    @overload
    def map(
        self: HasInput[Elements[T]],
        slug: str | None = None,
        *,
        over: None = None,
        batch: B = ...,
        tolerate: L = ...,
        **options: Unpack[OtherMapOptions],
    ) -> MapStep[T, B, L]: ...
    @overload
    def map(self, slug: str, handler: Callable[..., object], **options: Unpack[MapOptions]) -> Self: ...
    @overload
    def map(
        self: HasInput[Unsaid], handler: Callable[P, Iterator[X]], /
    ) -> MapFunction[P, Iterator[X], list[list[X]], object, list[X]]: ...
    @overload
    def map(self: HasInput[Unsaid], handler: Callable[P, R], /) -> MapFunction[P, R, list[R], object, R]: ...
    @overload
    def map(self, handler: FitsFlowItems[P, R], /) -> MapFunction[P, R, list[R], object, R]: ...
    @overload
    def map(
        self: HasInput[Elements[T]], handler: TakesSecond[T, P, R], /
    ) -> MapFunction[P, R, list[R], T, R]: ...
    @overload
    def map(
        self: HasInput[Elements[T]], handler: TakesColumns[object, C, P, R], /
    ) -> MapFunction[P, R, list[R], T, R]: ...
    @overload
    def map(
        self: HasInput[Elements[T]], handler: Takes[T, P, Iterator[X]], /
    ) -> MapFunction[P, Iterator[X], list[list[X]], T, list[X]]: ...
    @overload
    def map(self: HasInput[Elements[T]], handler: Takes[T, P, R], /) -> MapFunction[P, R, list[R], T, R]: ...
    def map(self, slug: Any = None, handler: Any = None, **options: Any) -> Any:
        """Add a map: one task per element of the parent's array, or of the run's input without ``over``.

        The handler receives one element; ``ctx.task_index`` is its position. ``tolerate`` is how many
        items may fail for good, as a count (int) or a share (float) of all; their outputs are null.
        ``stop_after_alike=K`` fails the step at once when its first K items all fail with one error.
        ``batch=N`` gives the handler a list of up to N elements, which it answers with as many results.
        ``storage`` is "tasks" or "ranges"; ``barrier=False`` lets a map over a map, both in ranges, begin
        with what its parent has done.
        """
        return self._define("map", slug, handler, options)
