"""Flows whose items are streamed."""

from __future__ import annotations

import time
from typing import Literal, NamedTuple

from pgflow_mp import Flow, PermanentError


class Pair(NamedTuple):
    """What the map of both flows returns."""

    n: int
    text: str


def _pair(n: float) -> Pair:
    if n == 13:
        raise PermanentError("thirteen")
    if n >= 1000:
        time.sleep(60)
    time.sleep(n % 1)
    return Pair(int(n), "x")


def _made(slug: str, storage: Literal["tasks", "ranges"]) -> Flow:
    flow = Flow(slug, max_attempts=1)
    flow.map("pair", _pair, tolerate=1, storage=storage)
    return flow


in_tasks = _made("in_tasks", "tasks")
in_ranges = _made("in_ranges", "ranges")

several = Flow("several")


@several.map
def twice(n: int) -> int:
    return 2 * n


@several.map(over=twice)
def thrice(n: int) -> int:
    return 3 * n


@several.step(depends_on=[thrice])
def total(thrice: list[int], factor: int = 1) -> int:
    return factor * sum(thrice)


whole = Flow("whole")


@whole.map
def one(n: int) -> int:
    return n


@whole.step
def all_of_them(numbers: list[int]) -> int:
    return len(numbers)
