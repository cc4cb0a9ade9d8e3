"""Decorated functions in the place of slugs, where outputs are asked for: they come as they are annotated."""

from __future__ import annotations

import asyncio
import functools
import gc
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy
import pytest
from database_server import DatabaseServer
from numpy.typing import NDArray

from pgflow_mp import AsyncClient, Client, Flow, FlowNotFound, RunFailed, StepFunction, run
from pgflow_mp.client import Run
from pgflow_mp.flows import handles
from pgflow_mp.flows.handles import step_in, step_of
from pgflow_mp.flows.results import inputs_reader
from pgflow_mp.runner import resume
from pgflow_mp.testing import run_inline

flow = Flow("answers_by_function", max_attempts=1)


@dataclass
class Line:
    text: str
    size: int = 0


@flow.array
def lines(flow_input: list[str]) -> Iterator[Line]:
    yield from (Line(text, len(text)) for text in flow_input)


@flow.map(over=lines, tolerate=1)
def half(line: Line) -> Line:
    if line.text == "odd":
        raise ValueError(line.text)
    return Line(line.text, line.size // 2)


@flow.step(depends_on=[half], when={"half": [{"text": "never"}]}, when_unmet="skip")
def seldom(half: list[Line | None]) -> int:
    return len(half)


@flow.step(depends_on=[half])
def total(half: list[Line | None]) -> frozenset[int]:
    return frozenset(line.size for line in half if line)


listed = Flow("items_by_function")


@listed.map
def sized(line: Line) -> Line:
    return Line(line.text, 1)


@listed.map(over=sized)
def letters(line: object) -> frozenset[str]:
    return frozenset("a")


TEXTS = ["four", "odd", "sixsix"]
HALVES = [Line("four", 2), None, Line("sixsix", 3)]


@pytest.fixture(scope="module", name="dsn")
def one_database(server: DatabaseServer, template: str) -> Iterator[str]:
    """For all tests here, which but for one run only read."""
    with server.database(template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def client(dsn: str) -> Iterator[Client]:
    with Client(dsn) as found:
        yield found


@pytest.fixture(scope="module")
def done(client: Client, dsn: str) -> Run:
    """A run of the flow that has completed."""
    run_id = str(uuid.uuid4())
    assert run(flow, TEXTS, dsn=dsn, executor="inline", run_id=run_id, output=total) == {2, 3}
    return client.run(run_id)


def test_one_step_s_output_is_answered_inline_as_it_is_annotated() -> None:
    for step in (half, "half"):
        assert run_inline(flow, TEXTS, output=step) == HALVES
    assert run_inline(flow, TEXTS) == {"total": {2, 3}}
    with pytest.raises(RunFailed, match=r'Step "seldom" has no output: it was skipped \(condition_unmet\)'):
        run_inline(flow, TEXTS, output=seldom)
    with pytest.raises(FlowNotFound, match=r'Step "tota" does not exist in flow "answers_by_function"'):
        run_inline(flow, TEXTS, output="tota")


def test_run_and_resume_answer_it_too(client: Client, done: Run, dsn: str) -> None:
    for step in (half, "half"):
        assert resume(flow, done.run_id, dsn=dsn, executor="inline", output=step) == HALVES
    with pytest.raises(RunFailed, match="it was skipped"):
        resume(flow, done.run_id, dsn=dsn, executor="inline", output=seldom)
    before = len(client.runs())
    with pytest.raises(FlowNotFound, match="Function other is not a step of flow"):
        run(flow, TEXTS, dsn=dsn, executor="inline", output=other)
    assert len(client.runs()) == before  # refused before anything is started


def test_a_client_reads_outputs_as_they_are_annotated(client: Client, done: Run) -> None:
    completed = [line for line in HALVES if line]
    assert list(client.results(done.run_id, half)) == completed
    assert list(done.results(half)) == completed
    assert list(client.indexed_results(done, half)) == [(0, completed[0]), (2, completed[1])]
    assert list(done.results("half")) == [{"text": "four", "size": 2}, {"text": "sixsix", "size": 3}]
    assert list(client.results(done, total)) == [{2, 3}]
    assert done.result(output=half) == HALVES
    assert done.result(output=total) == frozenset((2, 3))
    assert done.result(output="total") in ([2, 3], [3, 2])
    with pytest.raises(RunFailed, match=f'Step "seldom" of run {done.run_id} has no output'):
        done.result(output=seldom)
    with pytest.raises(FlowNotFound):
        done.result(output="tota")
    with pytest.raises(FlowNotFound, match='Function other is not a step of flow "answers_by_function"'):
        client.results(done, other)


def test_items_as_they_end_have_inputs_and_outputs_of_their_types(client: Client, done: Run) -> None:
    found = list(client.as_completed(done, half, ordered=True))
    assert [item.input for item in found] == [Line("four", 4), Line("odd", 3), Line("sixsix", 6)]
    assert [item.output for item in found] == HALVES
    plain = list(done.as_completed("half", ordered=True))
    assert [item.input for item in plain] == [{"text": text, "size": len(text)} for text in TEXTS]
    assert plain[0].output == {"text": "four", "size": 2}


def test_whatever_names_a_step_takes_its_function(client: Client, done: Run, dsn: str) -> None:
    assert [item.index for item in client.items(done, half, statuses="failed")] == [1]
    assert [group.step for group in done.failures(half)] == [group.step for group in done.failures("half")]
    assert [group.step for group in client.failures(done.run_id, half)] == ["half"]
    assert next(done.progress(step=half)) == next(client.progress(done, step="half"))
    everything: list[Any] = [half, [half], "half", [half, "lines"]]
    for steps in everything:
        assert client.retry(done, steps=steps, dry_run=True).steps[0].step == "half"
    how: dict[str, Any] = {"from_run": done.run_id, "dsn": dsn, "executor": "inline"}
    assert run(flow, TEXTS, reuse=[lines, half], output=total, **how) == {2, 3}
    assert (
        client.start_flow("answers_by_function", TEXTS, from_run=done.run_id, reuse=[lines]).status
        == "started"
    )
    for call in (client.items, client.failures):
        with pytest.raises(FlowNotFound, match="Function other is not a step"):
            call(done, other)
    with pytest.raises(FlowNotFound, match="Function other is not a step"):
        client.retry(done, steps=[half, other])
    with pytest.raises(FlowNotFound, match="Function other is not a step"):
        client.start_flow("answers_by_function", TEXTS, from_run=done.run_id, reuse=[other])


def test_the_asynchronous_client_does_the_same(done: Run, dsn: str) -> None:
    async def ask() -> None:
        async with AsyncClient(dsn) as client:
            mine = await client.run(done.run_id)
            assert [line async for line in client.results(mine, half)] == [line for line in HALVES if line]
            assert [index async for index, _ in client.indexed_results(done.run_id, half)] == [0, 2]
            found = [item async for item in mine.as_completed(half, ordered=True)]
            assert (found[0].input, found[0].output) == (Line("four", 4), Line("four", 2))
            assert await mine.result(output=half) == HALVES
            with pytest.raises(FlowNotFound):
                await mine.result(output=other)

    asyncio.run(ask())


def other(line: str) -> str:
    return line


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def test_a_function_is_found_as_depends_on_finds_it() -> None:
    assert step_of("answers_by_function", twice(half))[1].slug == "half"
    assert step_in(flow, cast("StepFunction[..., Line, object]", functools.partial(half))).slug == "half"
    several = Flow("several").map("one", other).map("two", other, over="one").step("own", len)
    for find in (functools.partial(step_in, several), functools.partial(step_of, "several")):
        with pytest.raises(FlowNotFound, match='the handler of several steps of flow "several": one, two'):
            find(other)
    assert step_of("several", len)[1].slug == "own"
    again = Flow("several").map("three", other)
    assert step_of("several", other) == (again, again.steps["three"])
    del again
    with pytest.raises(FlowNotFound, match="one, two"):
        step_of("several", other)


def test_flows_that_are_gone_leave_nothing_behind() -> None:
    for _ in range(100):
        Flow("short_lived").map("one", other)
    gc.collect()
    assert "short_lived" not in {found.slug for found in handles._DEFINED[other]}
    assert len(handles._DEFINED[other]) < 10


def test_inputs_are_read_as_what_the_parent_returns_or_the_handler_takes() -> None:
    made = Flow("inputs")

    @made.map
    def root(line: Line) -> float:
        return 1.5

    @made.map(over=root, batch=2)
    def batched(numbers: list[float]) -> list[Line]:
        return [Line(str(number)) for number in numbers]

    @made.step
    def sizes(flow_input: object) -> set[int]:
        return {1}

    @made.map(over=sizes, batch=2)
    def sized(numbers: list[int]) -> list[int]:
        return numbers

    @made.step
    def array(flow_input: object) -> NDArray[numpy.float64]:
        return numpy.array([1.5])

    @made.map(over=array)
    def whole(number: int) -> int:
        return number

    @made.map(over=batched)
    def anything(line: object) -> object:
        return line

    @made.map(over="anything")
    def members(**row: int) -> int:
        return len(row)

    def read(slug: str, raw: bytes) -> list[Any]:
        return inputs_reader(made, made.steps[slug])(raw)

    assert read("root", b'[{"text": "a"}, 5]') == [Line("a"), 5]  # what does not fit is what JSON gives
    assert [type(number) for number in read("batched", b"[1, 2]")] == [float, float]
    assert read("sized", b"[3, 1, 3]") == [3, 1, 3]
    assert read("whole", b"[1.5]") == [1.5]
    assert read("anything", b'[{"text": "a"}]') == [Line("a")]
    assert read("members", b'[{"a": 1}]') == [{"a": 1}]


def test_items_of_imap_are_what_the_handler_takes_and_returns(dsn: str) -> None:
    texts = [{"text": "four"}, {"text": "odd"}]
    how: Any = {"dsn": dsn, "executor": "inline", "keep": False}
    found = list(listed.imap(texts, step=letters, **how))
    assert [item.input for item in found] == [Line("four", 1), Line("odd", 1)]
    assert [item.output for item in found] == [frozenset("a"), frozenset("a")]
    given = next(listed.imap(texts, step=sized, **how))
    assert (given.input, given.output) == (Line("four"), Line("four", 1))
    plain = next(listed.imap(texts, step="sized", **how))
    assert (plain.input, plain.output) == (texts[0], {"text": "four", "size": 1})  # no leaf: as JSON has it
    with pytest.raises(FlowNotFound, match="Function other is not a step"):
        listed.imap(texts, step=other)


def test_a_flow_can_be_given_for_its_slug_to_start_a_run_of_one_input(dsn: str) -> None:
    fresh = Flow[dict[str, float]]("a_fresh_flow", nan="null").step("same", lambda flow_input: flow_input)
    with Client(dsn) as client:
        with pytest.raises(FlowNotFound):
            client.start_flow("a_fresh_flow", {"x": 1.0})
        started = client.start_flow(fresh, {"x": float("nan")}, tags=["a"])
        assert (started.flow_slug, started.input) == ("a_fresh_flow", {"x": None})
        assert (
            client.start_flow(fresh, {"x": 1.0}, key="k").run_id
            == client.start_flow("a_fresh_flow", {"x": 1.0}, key="k").run_id
        )

    async def start() -> str:
        async with AsyncClient(dsn) as client:
            return (await client.start_flow(fresh, {"x": 1.0}, key="k")).flow_slug

    assert asyncio.run(start()) == "a_fresh_flow"
