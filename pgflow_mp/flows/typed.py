"""What type checkers see of steps: functions that carry their output, and what decorators look at.

Nothing of this is there at run time: a decorated function is the function itself. A handler that has to fit
is matched with a protocol of two overloads, the first of which keeps all of its signature, while the second
one says what its parameter has to take. The docs (typing.md) say what is checked where. Where no overload of
a decorator fits, mypy tells of one whose protocol has but type variables; that there is none such, but for
those that are named for it, is why some have a parameter for object or Never.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from types import CodeType

    from typing_extensions import TypeVar as TypeVarWithDefault

    from pgflow_mp.flows.failures import Failed

    In = TypeVarWithDefault("In", default=Any)
    B = TypeVarWithDefault("B", bound=int | None, default=None)
    L = TypeVarWithDefault("L", bound=float | None, default=None)
else:
    In = TypeVar("In")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
N = TypeVar("N")
X = TypeVar("X")
Input = TypeVar("Input")
Out = TypeVar("Out")
X_co = TypeVar("X_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)
Out_co = TypeVar("Out_co", covariant=True)
Item_co = TypeVar("Item_co", covariant=True)
Result_co = TypeVar("Result_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)
B_co = TypeVar("B_co", covariant=True)
L_co = TypeVar("L_co", covariant=True)


class StepFunction(Generic[P, R_co, Out_co]):
    """A function that is a step of a flow: ``StepFunction[[str], int, list[int]]`` is a map's.

    It is called as before. The last of its types is that of the step's output, which is what steps that
    depend on it receive: of a map a list, with None for the items that it tolerates; None for a step that
    may be skipped. For annotations: at run time a step is the function that was decorated, and no instance of
    this class.
    """

    __name__: str
    __qualname__: str

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

        @property
        def _output(self) -> Out_co: ...


class MapFunction(StepFunction[P, R_co, Out_co], Generic[P, R_co, Out_co, Item_co, Result_co]):
    """A function that is a map: ``MapFunction[[str], int, list[int], str, int]``.

    Its last two types are those of an item and of what becomes of it. For annotations, as StepFunction is.
    """

    if TYPE_CHECKING:

        @property
        def _item(self) -> Item_co: ...

        @property
        def _result(self) -> Result_co: ...


if TYPE_CHECKING:

    class Unsaid:
        """Nothing is of this type: what can be it is Any."""

    class HasInput(Protocol[X_co]):
        """A flow whose runs are given such an input."""

        @property
        def _input(self) -> X_co: ...

    class Indexed(Protocol[X_co]):
        """A list, a tuple or an array; neither a text nor an object."""

        def __iter__(self) -> Iterator[X_co]: ...

        def __contains__(self, key: object, /) -> bool: ...

        def __getitem__(self, key: int, /) -> X_co: ...

    class PlainFunction(Protocol):
        """A function that was not decorated as a step."""

        @property
        def __code__(self) -> CodeType: ...

    StepLike = str | StepFunction[..., object, object] | PlainFunction
    """A step by its slug or its function."""
    OneStep = StepFunction[..., object, Out]
    OneMap = MapFunction[..., object, object, T, X]

    class Columns(Protocol):
        """An array or a frame of a library, which is made of a list."""

        def __array__(self, *args: Any, **kwargs: Any) -> Any: ...

    C = TypeVar("C", bound=Columns)
    Elements = Indexed[T] | AbstractSet[T] | None
    """What is written as an array; None is that of a step that was skipped, of which a map has no items."""

    class Takes(Protocol[T_contra, P, R_co]):
        """A function whose first parameter takes T."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self, item: T_contra, /, *args: Any, **kwargs: Any) -> R_co: ...

    class TakesSecond(Protocol[T_contra, P, R_co]):
        """The same of its second one, after the Context or a value of on_start."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self, first: Any, item: T_contra, /, *args: Any, **kwargs: Any) -> R_co: ...

    class TakesThird(Protocol[T_contra, P, R_co]):
        """The same of its third one."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self, first: Any, second: Any, item: T_contra, /, *args: Any, **kwargs: Any) -> R_co: ...

    class TakesNothing(Protocol[X_co, P, R_co]):
        """A function that can be called without arguments: all of its parameters have defaults."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self) -> X_co: ...

    class FitsFlowInput(Protocol[P, R_co]):
        """The same, by the name that mypy tells where none of the forms of a first step fits."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self) -> R_co: ...

    class TakesMembers(Protocol[T_contra, P, R_co]):
        """A function of ``**row``."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self, **kwargs: T_contra) -> R_co: ...

    class FitsFlowItems(Protocol[P, R_co]):
        """The same, by the name that mypy tells where none of the forms of a first map fits."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self, **kwargs: Any) -> R_co: ...

    class TakesContext(Protocol[T_contra, P, R_co]):
        """A function of which only the Context has no default, by its name."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self, *, ctx: T_contra) -> R_co: ...

    class TakesFlowInput(Protocol[T_contra, P, R_co]):
        """A function of which only the run's input has no default, by its name."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self, *, flow_input: T_contra) -> R_co: ...

    class TakesColumns(Protocol[X_co, T_contra, P, R_co]):
        """A function whose first parameter takes an array or a frame of a library."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self, item: T_contra, /, *args: Any, **kwargs: Any) -> X_co: ...

    class TakesColumnsList(Protocol[Out_co, T_contra, P, R_co, X_co]):
        """A function that takes its items as an array or a frame of a library, and answers with as many X."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(
            self, items: T_contra, /, *args: Any, **kwargs: Any
        ) -> Iterable[X_co | Failed | BaseException]: ...
        @overload
        def __call__(self, items: T_contra, /, *args: Any, **kwargs: Any) -> Out_co: ...

    class TakesList(Protocol[T_contra, P, R_co, X_co]):
        """A function whose first parameter takes a list of items, and which answers it with as many X."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(
            self, items: T_contra, /, *args: Any, **kwargs: Any
        ) -> Iterable[X_co | Failed | BaseException]: ...

    class TakesListSecond(Protocol[T_contra, P, R_co, X_co]):
        """The same of its second parameter."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(
            self, first: Any, items: T_contra, /, *args: Any, **kwargs: Any
        ) -> Iterable[X_co | Failed | BaseException]: ...

    class TakesGivesColumns(Protocol[T_contra, P, R_co]):
        """A function whose first parameter takes T, and which returns an array or a frame of a library."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self, item: T_contra, /, *args: Any, **kwargs: Any) -> Columns: ...

    class TakesNothingGivesArray(Protocol[Out_co, P, R_co, X_co]):
        """A function that can be called without arguments, and whose result is written as an array of X."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self) -> Elements[X_co] | Iterator[X_co]: ...
        @overload
        def __call__(self) -> Out_co: ...

    class ArrayFitsFlowInput(Protocol[P, R_co, X_co]):
        """The same, by the name that mypy tells where none of the forms of a first array step fits."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self) -> Elements[X_co] | Iterator[X_co]: ...

    class TakesGivesArray(Protocol[T_contra, P, R_co, X_co]):
        """The same, but its first parameter takes T."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(
            self, item: T_contra, /, *args: Any, **kwargs: Any
        ) -> Elements[X_co] | Iterator[X_co]: ...

    class TakesSecondGivesArray(Protocol[T_contra, P, R_co, X_co]):
        """The same of its second one."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(
            self, first: Any, item: T_contra, /, *args: Any, **kwargs: Any
        ) -> Elements[X_co] | Iterator[X_co]: ...
