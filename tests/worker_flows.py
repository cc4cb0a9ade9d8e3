"""Flows for the tests of the worker. Handlers leave a line in the file LOG for each execution."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from pgflow_mp import Context, Flow, PermanentError

LOG = "PGFLOW_TEST_LOG"


def _log(line: str) -> None:
    if path := os.environ.get(LOG):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{line}\n".encode())
        os.close(fd)


chain = Flow("chain")


@chain.map
def double(x: int, ctx: Context) -> int:
    _log(f"double {ctx.task_index}")
    return 2 * x


@chain.map(over=double)
def as_text(x: int) -> str:
    return f"#{x}"


@chain.step(depends_on=[as_text])
def joined(as_text: list[str]) -> str:
    return " ".join(as_text)


naps = Flow("naps", base_delay=1)


@naps.map
def nap(seconds: float, ctx: Context) -> int:
    """Sleep, logging start and end."""
    _log(f"start {ctx.task_index} {os.getpid()}")
    time.sleep(seconds)
    _log(f"end {ctx.task_index}")
    return ctx.task_index


@naps.step(depends_on=[nap])
def count(nap: list[int]) -> int:
    return len(nap)


mischief = Flow("mischief", base_delay=1, max_attempts=3)


@mischief.map
def act(item: list[Any], ctx: Context) -> Any:
    """Do what the item says: [verb, argument]."""
    verb, argument = item
    _log(f"{verb} {ctx.task_index} {ctx.attempt}")
    if verb == "echo":
        return argument
    if verb == "flaky":
        if ctx.attempt <= argument:
            raise ValueError(f"attempt {ctx.attempt} of task {ctx.task_index}")
        return ctx.attempt
    if verb == "fail":
        raise ValueError(argument)
    if verb == "permanent":
        raise PermanentError(argument)
    if verb == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if verb == "exit":
        os._exit(argument)
    if verb == "heed_sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _log(f"heeds {ctx.task_index}")
        time.sleep(argument)
    if verb == "spin":
        if ctx.attempt <= argument:
            while True:
                pass
        return ctx.attempt
    if verb == "sleep":
        time.sleep(argument)
    return None


killers = Flow("killers", base_delay=1, max_attempts=2)


def _above(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rsplit(")", 1)[1].split()[1])


@killers.map(tolerate=3)
def strike(victim: str | None, ctx: Context) -> int:
    """Kill the lanes' parent, or the worker that started it; None: nobody."""
    _log(f"strike {ctx.task_index}")
    if victim is not None:
        os.kill(os.getppid() if victim == "parent" else _above(os.getppid()), signal.SIGKILL)
        time.sleep(5)
    time.sleep(0.01)
    return ctx.task_index


single = Flow("single")


@single.step
def shout(name: str) -> str:
    return name.upper()


@single.step(depends_on=[shout])
def greet(shout: str) -> dict[str, str]:
    return {"greeting": f"Hello {shout}"}


bulky = Flow("bulky", base_delay=1)


@bulky.map
def left(length: int) -> str:
    return "l" * length


@bulky.map
def right(length: int) -> str:
    return "r" * length


@bulky.step(depends_on=[left, right])
def both(left: list[str], right: list[str]) -> int:
    return sum(map(len, left + right))


deep = Flow("deep", base_delay=1)


@deep.map
def swell(length: int) -> str:
    return "d" * length


@deep.array(depends_on=[swell])
def cut(swell: Iterable[str]) -> Iterator[str]:
    """The same again, a letter shorter."""
    for text in swell:
        yield text[1:]


@deep.map(over=cut)
def shrink(text: str) -> int:
    return len(text)


@deep.step(depends_on=[swell])
def extent(swell: Sequence[str]) -> list[int]:
    return [len(swell), sum(map(len, swell))]


def _vast(storage: Literal["tasks", "ranges"]) -> Flow:
    """A map whose outputs fit no JSON value, and steps that read them all, or one of them."""
    flow = Flow(f"vast_{storage}", storage=storage, base_delay=1, timeout=600)

    @flow.map
    def fill(length: int) -> str:
        return "v" * length

    @flow.step(depends_on=[fill])
    def total(fill: Iterable[str]) -> list[int]:
        lengths = [len(text) for text in fill]
        return [len(lengths), sum(lengths)]

    @flow.step(depends_on=[fill])
    def middle(fill: Sequence[str]) -> list[int]:
        return [len(fill), len(fill[len(fill) // 2])]

    return flow


def _heavy(storage: Literal["tasks", "ranges"]) -> Flow:
    """Two such maps, and a step over both."""
    flow = Flow(f"heavy_{storage}", storage=storage, base_delay=1, timeout=600)

    @flow.map
    def left(length: int) -> str:
        return "l" * length

    @flow.map
    def right(length: int) -> str:
        return "r" * length

    @flow.step(depends_on=[left, right])
    def both(left: Iterable[str], right: Sequence[str]) -> list[int]:
        return [sum(1 for _ in left), len(right), sum(map(len, left)), sum(map(len, right))]

    return flow


def _listed(storage: Literal["tasks", "ranges"]) -> Flow:
    """A step that wants a list of them."""
    flow = Flow(f"listed_{storage}", storage=storage, base_delay=1, max_attempts=1, timeout=600)

    @flow.map
    def parts(length: int) -> str:
        return "p" * length

    @flow.step(depends_on=[parts])
    def listed(parts: list[str]) -> int:
        return len(parts)

    return flow


vast_tasks, vast_ranges = _vast("tasks"), _vast("ranges")
heavy_tasks, heavy_ranges = _heavy("tasks"), _heavy("ranges")
listed_tasks, listed_ranges = _listed("tasks"), _listed("ranges")


wide = Flow("wide", base_delay=1)


@wide.map
def grow(length: int) -> str:
    return "g" * length


@wide.map(over=grow)
def measure(text: str) -> int:
    return len(text)


leaves = Flow("leaves")


@leaves.map
def one(length: int) -> str:
    return "1" * length


@leaves.map
def two(length: int) -> str:
    return "2" * length


doubled = Flow("doubled")


@doubled.map
def slowly_doubled(x: int, ctx: Context) -> int:
    _log(f"double {ctx.task_index}")
    time.sleep(0.005)
    return 2 * x


stepwise = Flow("stepwise", queues="step", max_attempts=1)


@stepwise.map
def double_each(x: int) -> int:
    return 2 * x


@stepwise.step(depends_on=[double_each])
def total(double_each: list[int]) -> int:
    return sum(double_each)


heaps = Flow("heaps", base_delay=1, max_attempts=2)


@heaps.map(batch=64, tolerate=5)
def heap(items: list[list[Any]]) -> list[Any]:
    """Do what each item says: [verb, argument]."""
    _log(f"heap {len(items)} {items[0][1]}")
    answers: list[Any] = []
    for verb, argument in items:
        if verb == "exit":
            os._exit(argument)
        if verb == "fail":
            raise ValueError(argument)
        answers.append(ValueError(argument) if verb == "answer" else argument)
    return answers
