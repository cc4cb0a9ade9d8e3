"""The flows that the benchmark runs."""

from __future__ import annotations

from pgflow_mp.bench import burning
from pgflow_mp.flows.flow import Flow

bench_map = Flow("bench_map")
bench_map.map("items", burning.noop)

bench_map_map = Flow("bench_map_map")
bench_map_map.map("first", burning.noop)
bench_map_map.map("second", burning.noop, over="first")

bench_map_single = Flow("bench_map_single")
bench_map_single.map("items", burning.noop)


@bench_map_single.step(depends_on=["items"])
def length(items: list[int]) -> int:
    """How many results came out."""
    return len(items)


bench_map_map_single = Flow("bench_map_map_single")
bench_map_map_single.map("first", burning.noop)
bench_map_map_single.map("second", burning.noop, over="first")


@bench_map_map_single.step(depends_on=["second"])
def total(second: list[int]) -> int:
    """The sum of all results."""
    return sum(second)


bench_array_map = Flow("bench_array_map")


@bench_array_map.array()
def numbers(count: int) -> list[int]:
    """As many numbers as the run's input says."""
    return list(range(count))


bench_array_map.map("items", burning.noop, over="numbers")

bench_burn = Flow("bench_burn", timeout=600)
bench_burn.map("items", burning.burn)

bench_nap = Flow("bench_nap")
bench_nap.map("items", burning.nap)

bench_echo = Flow("bench_echo")
bench_echo.map("items", burning.echo)
