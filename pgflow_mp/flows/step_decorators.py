"""The decorators of a flow, as type checkers see them (docs/typing.md says what they check).

At run time a decorated function is what it was: the overloads say what it is as a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Never, Self, Unpack, overload

from pgflow_mp.flows.defining import Defining
from pgflow_mp.flows.steps import AnyStepOptions, ConditionalOptions, Parent, StepOptions, SureOptions
from pgflow_mp.flows.typed import In, P, R, StepFunction, T, X

if TYPE_CHECKING:
    from pgflow_mp.flows.context import Context
    from pgflow_mp.flows.typed import (
        ArrayFitsFlowInput,
        Elements,
        FitsFlowInput,
        HasInput,
        Takes,
        TakesContext,
        TakesFlowInput,
        TakesGivesArray,
        TakesGivesColumns,
        TakesNothingGivesArray,
        TakesSecond,
        TakesSecondGivesArray,
        Unsaid,
    )
    from pgflow_mp.flows.typed_decorators import (
        AnyArray,
        AnyStep,
        RootArray,
        RootStep,
    )


class StepDecorators(Defining[In]):
    """``step`` and ``array`` of a flow whose runs are given an In."""

    @overload
    def step(
        self: HasInput[Unsaid],
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent] = (),
        **options: Unpack[SureOptions],
    ) -> AnyStep[Never]: ...
    @overload
    def step(
        self: HasInput[Unsaid],
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent] = (),
        **options: Unpack[ConditionalOptions],
    ) -> AnyStep[Never]: ...
    @overload
    def step(
        self: HasInput[Unsaid],
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent] = (),
        **options: Unpack[AnyStepOptions],
    ) -> AnyStep[None]: ...
    @overload
    def step(
        self,
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent],
        **options: Unpack[SureOptions],
    ) -> AnyStep[Never]: ...
    @overload
    def step(
        self,
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent],
        **options: Unpack[ConditionalOptions],
    ) -> AnyStep[Never]: ...
    @overload
    def step(
        self,
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent],
        **options: Unpack[AnyStepOptions],
    ) -> AnyStep[None]: ...
    @overload
    def step(
        self: HasInput[T], slug: str | None = None, **options: Unpack[SureOptions]
    ) -> RootStep[T, Never]: ...
    @overload
    def step(
        self: HasInput[T], slug: str | None = None, **options: Unpack[ConditionalOptions]
    ) -> RootStep[T, Never]: ...
    @overload
    def step(
        self: HasInput[T], slug: str | None = None, **options: Unpack[AnyStepOptions]
    ) -> RootStep[T, None]: ...
    @overload
    def step(self, slug: str, handler: Callable[..., object], **options: Unpack[StepOptions]) -> Self: ...
    @overload
    def step(
        self: HasInput[Unsaid], handler: Callable[P, Iterator[X]], /
    ) -> StepFunction[P, Iterator[X], list[X]]: ...
    @overload
    def step(self: HasInput[Unsaid], handler: Callable[P, R], /) -> StepFunction[P, R, R]: ...
    @overload
    def step(self, handler: FitsFlowInput[P, R], /) -> StepFunction[P, R, R]: ...
    @overload
    def step(self, handler: TakesContext[Context, P, R], /) -> StepFunction[P, R, R]: ...
    @overload
    def step(self: HasInput[T], handler: TakesFlowInput[T, P, R], /) -> StepFunction[P, R, R]: ...
    @overload
    def step(self: HasInput[T], handler: TakesSecond[T, P, R], /) -> StepFunction[P, R, R]: ...
    @overload
    def step(self, handler: Takes[Context, P, R], /) -> StepFunction[P, R, R]: ...
    @overload
    def step(
        self: HasInput[T], handler: Takes[T, P, Iterator[X]], /
    ) -> StepFunction[P, Iterator[X], list[X]]: ...
    @overload
    def step(self: HasInput[T], handler: Takes[T, P, R], /) -> StepFunction[P, R, R]: ...
    def step(self, slug: Any = None, handler: Any = None, **options: Any) -> Any:
        """Add a step: one task. A root step receives the run's input, others their parents' outputs.

        Usable as ``@flow.step``, ``@flow.step(depends_on=[parent])``, ``@flow.step("slug", ...)``, and
        ``flow.step("slug", function, ...)``, which returns the flow. The slug defaults to the
        function's name. ``depends_on`` takes slugs and decorated functions. ``when``/``unless`` are
        JSON patterns matched against the step's input; ``when_unmet`` and ``when_exhausted`` are
        "fail", "skip" or "skip-cascade"; ``start_delay`` is in seconds.
        """
        return self._define("step", slug, handler, options)

    @overload
    def array(
        self: HasInput[Unsaid],
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent] = (),
        **options: Unpack[SureOptions],
    ) -> AnyArray[Never]: ...
    @overload
    def array(
        self: HasInput[Unsaid],
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent] = (),
        **options: Unpack[ConditionalOptions],
    ) -> AnyArray[Never]: ...
    @overload
    def array(
        self: HasInput[Unsaid],
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent] = (),
        **options: Unpack[AnyStepOptions],
    ) -> AnyArray[None]: ...
    @overload
    def array(
        self,
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent],
        **options: Unpack[SureOptions],
    ) -> AnyArray[Never]: ...
    @overload
    def array(
        self,
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent],
        **options: Unpack[ConditionalOptions],
    ) -> AnyArray[Never]: ...
    @overload
    def array(
        self,
        slug: str | None = None,
        *,
        depends_on: Parent | Iterable[Parent],
        **options: Unpack[AnyStepOptions],
    ) -> AnyArray[None]: ...
    @overload
    def array(
        self: HasInput[T], slug: str | None = None, **options: Unpack[SureOptions]
    ) -> RootArray[T, Never]: ...
    @overload
    def array(
        self: HasInput[T], slug: str | None = None, **options: Unpack[ConditionalOptions]
    ) -> RootArray[T, Never]: ...
    @overload
    def array(
        self: HasInput[T], slug: str | None = None, **options: Unpack[AnyStepOptions]
    ) -> RootArray[T, None]: ...
    @overload
    def array(self, slug: str, handler: Callable[..., object], **options: Unpack[StepOptions]) -> Self: ...
    @overload
    def array(
        self: HasInput[Unsaid], handler: TakesGivesColumns[Never, P, R], /
    ) -> StepFunction[P, R, list[Any]]: ...
    @overload
    def array(
        self: HasInput[Unsaid], handler: TakesNothingGivesArray[object, P, R, X], /
    ) -> StepFunction[P, R, list[X]]: ...
    @overload
    def array(
        self: HasInput[Unsaid], handler: TakesGivesArray[Never, P, R, X], /
    ) -> StepFunction[P, R, list[X]]: ...
    @overload
    def array(
        self: HasInput[Unsaid], handler: Callable[P, Elements[X] | Iterator[X]], /
    ) -> StepFunction[P, Elements[X] | Iterator[X], list[X]]: ...
    @overload
    def array(self, handler: ArrayFitsFlowInput[P, R, X], /) -> StepFunction[P, R, list[X]]: ...
    @overload
    def array(
        self: HasInput[T], handler: TakesSecondGivesArray[T, P, R, X], /
    ) -> StepFunction[P, R, list[X]]: ...
    @overload
    def array(self, handler: TakesGivesArray[Context, P, R, X], /) -> StepFunction[P, R, list[X]]: ...
    @overload
    def array(self: HasInput[T], handler: TakesGivesColumns[T, P, R], /) -> StepFunction[P, R, list[Any]]: ...
    @overload
    def array(self: HasInput[T], handler: TakesGivesArray[T, P, R, X], /) -> StepFunction[P, R, list[X]]: ...
    def array(self, slug: Any = None, handler: Any = None, **options: Any) -> Any:
        """Add a step that returns a list, or yields its elements; a map can follow ``over`` it.

        Anything else that it returns fails the task for good.
        """
        return self._define("array", slug, handler, options)
