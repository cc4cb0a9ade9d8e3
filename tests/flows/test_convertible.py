"""Annotations that nothing can satisfy are refused where the step is defined; the others are converted to."""

from __future__ import annotations

import abc
import collections
import dataclasses
import fractions
import ipaddress
import numbers
import pathlib
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypedDict

import msgspec
import pytest

from pgflow_mp import Flow, FlowDefinitionError
from pgflow_mp.flows.handlers import check
from pgflow_mp.testing import run_inline

Path = pathlib.Path


class Plain:
    pass


class Speaks(Protocol):
    def speak(self) -> str: ...


class Table(dict[str, int]):
    pass


class Name(str):
    pass


class Made(str):
    def __new__(cls, first: str, second: str) -> Made:
        return super().__new__(cls, first + second)


@dataclasses.dataclass
class Files:
    paths: list[Path]
    newest: Path | None = None
    inner: Files | None = None


class Place(NamedTuple):
    path: Path


class Struct(msgspec.Struct):
    words: collections.Counter[str]


class Typed(TypedDict):
    path: Path


class Sparse(msgspec.Struct, omit_defaults=True):
    number: int | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType | None = msgspec.UNSET


@dataclasses.dataclass
class Bad:
    name: str
    number: complex


class BadStruct(msgspec.Struct):
    inner: list[Bad]


class BadTyped(TypedDict):
    pattern: re.Pattern[str]


class BadTuple(NamedTuple):
    plain: Plain


SATISFIED: list[tuple[Any, Any]] = [
    (Path, Path("a/b")),
    (bytes, b"\0\xff"),
    (bytearray, bytearray(b"\0")),
    (bytes | None, b""),
    (dict[bytes, list[bytes]], {b"\0": [b"a", b""]}),
    (pathlib.PurePosixPath, pathlib.PurePosixPath("a")),
    (Path | None, Path("a")),
    (list[Path], [Path("a")]),
    (tuple[Path, int], (Path("a"), 1)),
    (frozenset[Path], frozenset([Path("a")])),
    (Mapping[str, Path], {"a": Path("a")}),
    (dict[Path, int], {Path("a"): 1}),
    (typing.Annotated[Path, "where"], Path("a")),
    (collections.deque, collections.deque([1])),
    (collections.deque[Path], collections.deque([Path("a")])),
    (collections.Counter, collections.Counter("aab")),
    (collections.Counter[int], collections.Counter([7, 7])),
    (collections.defaultdict[str, list[int]], collections.defaultdict(list, {"a": [1]})),
    (collections.defaultdict, collections.defaultdict(None, {"a": 1})),
    (collections.OrderedDict[int, str], collections.OrderedDict({1: "a"})),
    (collections.ChainMap[str, int], collections.ChainMap({"a": 1})),
    (collections.UserDict, collections.UserDict({"a": 1})),
    (collections.UserList, collections.UserList([1])),
    (fractions.Fraction, fractions.Fraction(1, 3)),
    (ipaddress.IPv4Address, ipaddress.IPv4Address("10.0.0.1")),
    (ipaddress.IPv6Network, ipaddress.IPv6Network("::/64")),
    (Table, Table(a=1)),
    (Name, Name("a")),
    (Files, Files([Path("a")], Path("b"), Files([]))),
    (Place, Place(Path("a"))),
    (Struct, Struct(collections.Counter("a"))),
    (Typed, {"path": Path("a")}),
    (Sparse, Sparse()),
    (list[Sparse], [Sparse(number=1), Sparse(text=None)]),
    (collections.UserString, collections.UserString("a")),
    (Iterable[int], [1, 2]),
    (Sequence[Path], [Path("a")]),
    (object, {"a": 1}),
    (list[object], [1, "a"]),
    (numbers.Real, 1.5),
    (Hashable, "a"),
    (typing.SupportsInt, 5),
    (typing.LiteralString, "a"),
]

REFUSED: list[tuple[Any, str]] = [
    (Plain, "Plain"),
    (Plain | None, "Plain"),
    (list[Plain], "Plain (at [...])"),
    (dict[str, list[Plain]], "Plain (at [...][...])"),
    (collections.deque[Plain], "Plain (at [...])"),
    (Iterable[Plain], "Plain (at [...])"),
    (Speaks, "Speaks"),
    (Made, "Made"),
    (complex, "complex"),
    (range, "range"),
    (slice, "slice"),
    (re.Pattern[str], "re.Pattern[str]"),
    (Generator[int, None, None], "Generator"),
    (Callable[[int], int], "Callable"),
    (type[int], "type[int]"),
    (Bad, "complex (at number)"),
    (BadStruct, "complex (at inner[...].number)"),
    (BadTyped, "re.Pattern[str] (at pattern)"),
    (BadTuple, "Plain (at plain)"),
    (dict[tuple[int, int], str], "dict[tuple[int, int], str]"),
    (dict[bool, str], "dict[bool, str]"),
    (collections.Counter[tuple[str, str]], "Counter[tuple[str, str]]"),
    (Path | str, "pathlib.Path | str"),
    (typing.Never, "Never"),
]

UNWRITABLE: list[tuple[Any, str]] = [
    (complex, "complex"),
    (complex | None, "complex"),
    (list[complex], "complex (at [...])"),
    (Iterator[complex], "complex (at [...])"),
    (Plain, "Plain"),
    (Bad, "complex (at number)"),
    (BadStruct, "complex (at inner[...].number)"),
    (dict[tuple[int, int], str], "dict[tuple[int, int], str]"),
    (collections.Counter[tuple[str, str]], "Counter[tuple[str, str]]"),
    (re.Pattern[str], "re.Pattern[str]"),
    (Callable[[], int], "Callable"),
]

PERHAPS_WRITABLE: list[Any] = [
    *(None, Any, object, Speaks, bytes | str, complex | int, abc.ABC, typing.NoReturn, typing.TypeVar("T")),
    *(Path | str, range, Generator[int, None, None], Mapping[str, Any], set[Path], Exception, Hashable),
    *(dict[int | str, Path], "Missing", numbers.Number, msgspec.Raw, collections.abc.Collection[int]),
]


def parameter(annotation: Any) -> Callable[[Any], Any]:
    def look(value: Any) -> None:
        seen.append(value)

    seen: list[Any] = []
    look.__annotations__ = {"value": annotation}
    look.seen = seen  # type: ignore[attr-defined]
    return look


def returning(annotation: Any) -> Callable[[Any], Any]:
    def answer(value: Any) -> Any:
        return value

    answer.__annotations__ = {"return": annotation}
    return answer


@pytest.mark.parametrize(("annotation", "value"), SATISFIED, ids=[str(kind) for kind, _ in SATISFIED])
def test_what_a_step_returns_comes_back_as_the_type_that_the_next_one_asks_for(
    annotation: Any, value: Any
) -> None:
    look = parameter(annotation)
    flow = Flow("demo").step("first", lambda _: value).step("value", returning(annotation))
    flow.step("second", look, depends_on=["value"])
    flow.map("each", returning(annotation))
    assert run_inline(Flow("demo").map("m", look), [value]) == {"m": [None]}
    (seen,) = look.seen  # type: ignore[attr-defined]
    assert (type(seen), seen) == (type(value), value)
    answer = run_inline(Flow("demo").step("a", returning(annotation)), value, output="a")
    assert answer == value


def test_an_iterator_is_one_and_a_result_that_was_yielded_a_list() -> None:
    def total(values: Iterator[Path]) -> Iterator[Path]:
        yield next(values)

    assert run_inline(Flow("demo").step("total", total), ["a", "b"]) == {"total": [Path("a")]}


@pytest.mark.parametrize(("annotation", "words"), REFUSED, ids=[str(kind) for kind, _ in REFUSED])
@pytest.mark.parametrize("kind", ["map", "reducer", "flow_input"])
def test_a_parameter_that_nothing_can_satisfy_is_refused_when_its_step_is_defined(
    annotation: Any, words: str, kind: str
) -> None:
    def reduce(each: Any) -> None: ...

    def take(x: int, flow_input: Any) -> None: ...

    flow = Flow("demo").map("each", len)
    reduce.__annotations__["each"] = list.__class_getitem__(annotation)
    take.__annotations__["flow_input"] = annotation
    handlers: dict[str, tuple[Callable[..., Any], str]] = {
        "map": (parameter(annotation), "value"),
        "reducer": (reduce, "each"),
        "flow_input": (take, "flow_input"),
    }
    handler, name = handlers[kind]
    with pytest.raises(FlowDefinitionError) as caught:
        flow.step("m", handler, depends_on=["each"] if kind == "reducer" else [])
    text = str(caught.value)
    assert f'of step "m" of flow "demo": parameter "{name}" has an annotation that JSON cannot be' in text
    assert words.partition(" (")[0] in text
    assert caught.value.hint
    if kind == "map":
        assert words in text


@pytest.mark.parametrize(("annotation", "words"), UNWRITABLE, ids=[str(kind) for kind, _ in UNWRITABLE])
def test_a_result_that_cannot_be_stored_is_refused_by_its_annotation(annotation: Any, words: str) -> None:
    with pytest.raises(FlowDefinitionError) as caught:
        Flow("demo").step("s", returning(annotation))
    assert 'of step "s" of flow "demo" returns what cannot be stored as JSON' in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("annotation", PERHAPS_WRITABLE, ids=str)
def test_in_doubt_a_result_passes(annotation: Any) -> None:
    check(Flow("demo").step("s", returning(annotation)))


def test_what_is_defined_later_is_checked_when_the_flow_is_loaded() -> None:
    def take(x: Later) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    flow = Flow("demo").map("m", take)
    take.__globals__["Later"] = Bad
    try:
        with pytest.raises(FlowDefinitionError, match=r"converted to: complex \(at number\)"):
            check(flow)
    finally:
        del take.__globals__["Later"]


def test_a_value_that_does_not_fit_is_told_with_its_path() -> None:
    with pytest.raises(Exception, match=r"Expected `Path`, got `int` - at `\$\[1\]`"):
        run_inline(Flow("demo").step("s", parameter(list[Path])), ["a", 5])
    with pytest.raises(Exception, match=r"Expected `Real`, got `str`"):
        run_inline(Flow("demo").step("s", parameter(numbers.Real)), "a")


def test_neither_numpy_nor_pandas_nor_pydantic_is_imported_by_us() -> None:
    program = """
import sys
from pathlib import Path
from pgflow_mp import Flow
from pgflow_mp.testing import run_inline

def take(x: Path) -> list[Path]:
    return [x]

run_inline(Flow("demo").step("take", take), "a")
print([name for name in ("numpy", "pandas", "pydantic") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
