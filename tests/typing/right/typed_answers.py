"""What runs answer has the types that the steps say."""

# pyright: strict

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import msgspec

from pgflow_mp import AsyncClient, Client, FinishedItem, Flow, Json, QueueWorker, StepFunction, run
from pgflow_mp.client import AsyncRun, Run
from pgflow_mp.runner import resume
from pgflow_mp.testing import execute_inline, run_inline

flow = Flow[list[str]]("typed_answers")
bare = Flow("bare")
other = Flow[dict[str, int]]("other")


class Line(msgspec.Struct):
    text: str
    size: int


@flow.map
def measured(line: str) -> Line:
    return Line(line, len(line))


@flow.map(over=measured, tolerate=2)
def half(line: Line) -> float:
    return line.size / 2


@flow.step(depends_on=[half])
def total(half: list[float | None]) -> float:
    return sum(size for size in half if size)


@flow.step(depends_on=[total])
def spread(total: float) -> Iterator[float]:
    yield total


@bare.map
def doubled(number: int) -> int:
    return 2 * number


def plain(line: str) -> str:
    return line


def lines() -> Iterator[str]:
    yield "line"


async def later() -> AsyncIterator[str]:
    yield "line"


texts = ["one", "two"]
assert_type(run(flow, texts), dict[str, object] | None)
assert_type(run(flow, texts, output=total), float)
assert_type(run(flow, texts, output=measured), list[Line])
assert_type(run(flow, texts, output=half, workers=2, timeout=5, tags=["a"]), list[float | None])
assert_type(run(flow, texts, output=spread), list[float])
assert_type(run(flow, texts, output="total"), object)
assert_type(run(flow.step("more", plain), texts, output=plain), object)
assert_type(run(flow, lines(), grace=3, preload=["flow"]), dict[str, object] | None)
assert_type(run(flow, later()), dict[str, object] | None)
assert_type(run(bare, range(3), output=doubled), list[int])
assert_type(run(other, {"a": 1}), dict[str, object] | None)
assert_type(resume(flow, "id", output=total), float)
assert_type(resume(flow, "id"), dict[str, object] | None)

assert_type(run_inline(flow, texts), dict[str, object] | None)
assert_type(run_inline(flow, texts, output=total), float)
assert_type(run_inline(flow, output=half), list[float | None])
assert_type(execute_inline(flow, texts).output, dict[str, object] | None)

for item in flow.imap(texts, step=measured, workers=2):
    assert_type(item, FinishedItem[str, Line])
    assert_type(item.output, Line | None)
for item_of_half in flow.imap(lines(), step=half, ordered=False):
    assert_type(item_of_half, FinishedItem[Line, float])
assert_type(next(flow.imap(texts)), FinishedItem[Json, object])
assert_type(next(bare.imap(range(3), step=doubled)), FinishedItem[object, int])
assert_type(next(other.imap(texts, params={"a": 1})), FinishedItem[Json, object])


def follow(client: Client) -> None:
    started = client.start(flow, texts, priority=1)
    assert_type(started, Run)
    assert_type(client.start(flow, later()), Run)
    assert_type(client.start(bare, range(3)), Run)
    assert_type(client.start(other, texts, params={"a": 1}), Run)
    assert_type(client.start("typed_answers", texts), Run)
    assert_type(client.start_flow(flow, texts, tags=["a"]), Run)
    assert_type(client.start_flow("typed_answers", {"any": "thing"}, key="a"), Run)
    client.schedule(flow, "* * * * *", texts)
    client.schedule("typed_answers", "* * * * *", {"any": "thing"})
    assert_type(started.wait(5), Run)
    assert_type(client.wait(started), Run)
    assert_type(list(started.results(measured)), list[Line])
    assert_type(list(started.results(half)), list[float])
    assert_type(list(started.results(total)), list[float])
    assert_type(list(started.results(spread)), list[list[float]])
    assert_type(list(client.results("id", measured)), list[Line])
    assert_type(list(client.results("id", "measured")), list[Json])
    assert_type(list(client.indexed_results(started, half)), list[tuple[int, float]])
    assert_type(next(started.as_completed(measured)), FinishedItem[str, Line])
    assert_type(next(client.as_completed(started, half, ordered=True)), FinishedItem[Line, float])
    assert_type(next(client.as_completed(started, total)), FinishedItem[Json, float])
    assert_type(next(client.as_completed(started, "half")), FinishedItem[Json, Json])
    assert_type(started.result(output=total), float)
    assert_type(started.result(output=half), list[float | None])
    assert_type(started.result(5, output="half"), Json)
    assert_type(started.result(), dict[str, Json] | None)
    assert_type(started.input, Json)
    assert_type(started.steps["half"].output, Json)
    assert_type(client.enqueue("mails", Line("a", 1)), int)
    assert_type(client.enqueue_many("mails", [1, 2]), list[int])


async def follow_later(client: AsyncClient) -> None:
    started = await client.start(flow, later(), tags=["a"])
    assert_type(started, AsyncRun)
    assert_type(await client.start_flow(flow, texts), AsyncRun)
    await client.schedule(flow, "* * * * *", texts)
    assert_type([line async for line in started.results(measured)], list[Line])
    assert_type([pair async for pair in client.indexed_results(started, half)], list[tuple[int, float]])
    async for item in started.as_completed(measured):
        assert_type(item, FinishedItem[str, Line])
    async for plain_item in client.as_completed(started, "half"):
        assert_type(plain_item, FinishedItem[Json, Json])
    assert_type(await started.result(output=total), float)
    assert_type(await started.result(), dict[str, Json] | None)


def narrowed(output: Json) -> int:
    match output:
        case {"sizes": [int(first), *_]}:
            return first
        case _:
            return 0


def pages(of: StepFunction[..., object, list[float]]) -> float:
    return sum(run(flow, texts, output=of))


def finished(items: list[FinishedItem]) -> None:
    items.extend(flow.imap(texts, step=half))


pages(spread)
QueueWorker(plain, "mails", workers=2, labels=["gpu"]).run()
