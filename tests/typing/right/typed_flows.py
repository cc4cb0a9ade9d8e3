"""Ten flows of the kinds that there are, typed from end to end; checked by test_typing.py, never imported."""

# pyright: strict

from __future__ import annotations

import datetime
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, assert_type

import msgspec
import numpy
import numpy.typing

from pgflow_mp import Context, Failed, Flow, PermanentError, input_of, output_of, value_of

# 1: a map over the run's input, and all of its results
factors = Flow[list[int]]("factors")


@factors.map
def factor(number: int) -> list[int]:
    return [each for each in range(2, number) if number % each == 0]


@factors.step
def primes(found: Sequence[Sequence[int]] = output_of(factor)) -> int:
    return sum(not each for each in found)


assert_type(factor(number=12), list[int])
assert_type(primes([[2]]), int)

# 2: conditions, and steps that may be skipped
tour = Flow("tour", max_attempts=3)


class Request(msgspec.Struct):
    numbers: int
    loud: bool = False


class Square(msgspec.Struct):
    number: int
    square: int


@tour.array
def numbers(request: Request) -> list[int]:
    if request.numbers < 0:
        raise PermanentError("there are no negative amounts")
    return list(range(request.numbers))


@tour.map(over=numbers, max_attempts=5, timeout=30)
def square(number: int, ctx: Context) -> Square:
    return Square(number, number * ctx.attempt)


@tour.step(depends_on=[square])
def total(square: list[Square]) -> int:
    return sum(each.square for each in square)


@tour.step(depends_on=[total], when={"total": 285})
def jackpot(total: int) -> str:
    return f"{total}, of all numbers!"


@tour.step(depends_on=[total, jackpot])
def message(total: int, flow_input: Request, jackpot: str | None = None) -> str:
    return jackpot or f"{total}, {flow_input.loud}"


assert_type(output_of(jackpot), str | None)
assert_type(output_of(square), list[Square])

# 3: the same in the typed form, with a condition without which nothing runs
typed = Flow[Request]("typed")


@typed.array
def typed_numbers(request: Request, ctx: Context) -> Iterator[int]:
    yield from range(request.numbers + ctx.attempt)


@typed.map(over=typed_numbers, when={"typed_numbers": [3]}, when_unmet="skip-cascade")
def root(number: int) -> float:
    return math.sqrt(number)


@typed.step(when={"root": [1.0, 2]}, when_unmet="fail")
def largest(roots: list[float] = output_of(root)) -> float:
    return max(roots)


@typed.step(when_exhausted="skip")
def smallest(roots: Iterable[float] = output_of(root)) -> float:
    return min(roots)


@typed.step
def spread(
    high: float = output_of(largest),
    low: float | None = output_of(smallest),
    *,
    asked: Request = input_of(typed),
    ctx: Context,
) -> dict[str, Any]:
    return {"spread": high - (low or 0), "loud": asked.loud, "attempt": ctx.attempt}


assert_type(output_of(spread), dict[str, Any])
assert_type(output_of(typed_numbers), list[int])
assert_type(input_of(typed), Request)

# 4: paths, counters, dates
words = Flow[Path]("words")


@words.array
def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.txt"))


@words.map(over=files)
def count(file: Path) -> Counter[str]:
    return Counter(file.read_text().split())


@words.map(over=files)
def changed(file: Path) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(file.stat().st_mtime)


@words.step(depends_on=[count, changed])
def common(count: list[Counter[str]], changed: list[datetime.datetime]) -> list[tuple[str, int]]:
    return sum(count, Counter[str]()).most_common(len(changed))


# 5: batches, tolerated failures, arrays of numpy
vectors = Flow[list[float]]("vectors")


@vectors.map(batch=256)
def scaled(values: numpy.typing.NDArray[numpy.float64]) -> list[float]:
    return [float(value) for value in values * 2]


@vectors.map(over=scaled, batch=16, tolerate=0.01)
def checked(values: list[float], ctx: Context) -> list[float | Failed]:
    return [value if value > 0 else Failed("negative") for value in values]


@vectors.map(over=checked)
def shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.1f}"


@vectors.step
def mean(values: list[float | None] = output_of(checked)) -> float:
    return statistics.fmean(value for value in values if value is not None)


assert_type(output_of(checked), list[float | None])
assert_type(checked([1.0], Context()), list[float | Failed])

# 6: what is made once in each process
inference = Flow[list[str]]("inference")


@dataclass
class Model:
    weight: float


@inference.on_start
def weight() -> float:
    return 2.0


@inference.on_start
def model(weight: float) -> Iterator[Model]:
    yield Model(weight)


@inference.map
def by_name(model: Model, text: str) -> float:
    return len(text) * model.weight


@inference.map
def by_default(text: str, made: Model = value_of(model), weight: float = value_of(weight)) -> float:
    return len(text) * made.weight * weight


# 7: a diamond, of parents by name, by slug and by default
diamond = Flow[float]("diamond")


@diamond.step("one")
def first(value: float) -> float:
    return value


@diamond.step(depends_on=["one"])
def left(one: float) -> str:
    return str(one)


@diamond.step(depends_on=first)
def right(one: float) -> bool:
    return one > 0


@diamond.step(depends_on=[left, "right"])
def named(left: str, right: bool, flow_input: float) -> list[Any]:
    return [left, right, flow_input]


@diamond.step
def joined(text: str = output_of(left), sign: bool = output_of(right), again: str = output_of("left")) -> str:
    return f"{text} {sign} {again}"


# 8: all parents as one, members of objects, nothing at all
shapes = Flow("shapes")


class Row(TypedDict):
    name: str
    size: int


@shapes.array
def rows(*, flow_input: dict[str, int]) -> tuple[Row, ...]:
    return tuple(Row(name=name, size=size) for name, size in flow_input.items())


@shapes.map(over=rows)
def area(**row: Any) -> int:
    return int(row["size"]) ** 2


@shapes.step(depends_on=[rows, area])
def everything(parents: dict[str, Any]) -> list[str]:
    return sorted(parents)


@shapes.step(depends_on=[everything])
def after_all() -> str:
    return "done"


# 9: maps of maps, and of what one step returns
nested = Flow[Sequence[int]]("nested", storage="ranges")


@nested.map(timeout=60)
def lists(length: int) -> list[int]:
    return list(range(length))


@nested.map(over=lists, barrier=False)
def sums(values: Sequence[int]) -> int:
    return sum(values)


@nested.step(depends_on=[sums])
def halves(sums: set[int]) -> frozenset[int]:
    return frozenset(each // 2 for each in sums)


@nested.map(over=halves)
def shown_half(value: int) -> str:
    return str(value)


# 10: as calls, one after the other
def length(text: str) -> int:
    return len(text)


calls = Flow[list[str]]("calls").map("length", length).step("most", max, depends_on="length")
assert_type(calls, Flow[list[str]])
calls.map("again", abs, over="length", tolerate=3)


@calls.step(depends_on=length)
def last(length: list[int]) -> int:
    return length[-1]
