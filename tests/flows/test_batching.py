"""What a handler of batches answers, and what becomes of each of its items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgflow_mp import Failed, Flow, PermanentError
from pgflow_mp.flows.batching import run_batches
from pgflow_mp.flows.context import Context
from pgflow_mp.flows.handlers import COMPLETED, FAILED, FAILED_FOR_GOOD, PreparedHandler, prepare


def prepared(handler: Callable[..., Any], batch: int = 4) -> PreparedHandler:
    flow = Flow("f")
    handler.__name__ = "step"
    flow.map(batch=batch)(handler)
    return prepare(flow, "step")


def run(handler: Callable[..., Any], *inputs: Any, **options: Any) -> list[tuple[int, str]]:
    raw = [str(input).encode() for input in inputs]
    indexes = range(100, 100 + len(raw))
    outcomes = run_batches(
        prepared(handler), raw, indexes, None, lambda low, input: Context(task_index=100 + low), **options
    )
    return [(kind, body.decode()) for kind, body in outcomes]


def test_items_are_decoded_together_and_results_encoded_one_by_one() -> None:
    seen: list[list[int]] = []

    def step(items: list[int]) -> list[Any]:
        seen.append(items)
        return [item * 2 if item < 9 else {"n": item} for item in items]

    assert run(step, *range(5, 11)) == [
        (0, "10"),
        (0, "12"),
        (0, "14"),
        (0, "16"),
        (0, '{"n":9}'),
        (0, '{"n":10}'),
    ]
    assert seen == [[5, 6, 7, 8], [9, 10]]
    seen.clear()
    run(step, *range(5), size=3)
    run(step, *range(5), size=30)
    assert [len(items) for items in seen] == [3, 2, 4, 1]


class Odd(Exception):
    pass


def test_a_batch_that_raises_is_halved_down_to_those_that_raise_alone() -> None:
    calls: list[list[int]] = []

    def step(items: list[int]) -> list[int]:
        calls.append(items)
        if 6 in items:
            raise Odd(len(items))
        if 1 in items:
            raise PermanentError("never")
        return items

    found = run(step, *range(8))
    assert [kind for kind, _ in found] == [0, FAILED_FOR_GOOD, 0, 0, 0, 0, FAILED, 0]
    assert found[1][1].startswith("pgflow_mp.errors.PermanentError: never")
    assert "Odd: 1\n" in found[6][1]
    assert calls == [[0, 1, 2, 3], [0, 1], [0], [1], [2, 3], [4, 5, 6, 7], [4, 5], [6, 7], [6], [7]]


def test_an_item_that_does_not_fit_fails_alone_and_for_good() -> None:
    def step(items: list[int]) -> list[int]:
        return items

    found = run(step, 1, '"x"', 3)
    assert [kind for kind, _ in found] == [0, FAILED_FOR_GOOD, 0]
    assert "does not fit parameter" in found[1][1]


def test_failures_in_the_answer_are_those_of_their_items() -> None:
    def step(items: list[int]) -> list[Any]:
        return [
            ValueError("first"),
            Failed("text"),
            Failed(PermanentError("gone")),
            Failed("x", permanent=True),
        ]

    found = run(step, 1, 2, 3, 4)
    assert [kind for kind, _ in found] == [FAILED, FAILED, FAILED_FOR_GOOD, FAILED_FOR_GOOD]
    assert [text for _, text in found] == [
        "ValueError: first",
        "text",
        "pgflow_mp.errors.PermanentError: gone",
        "x",
    ]
    assert repr(Failed("x", permanent=True)) == "Failed('x', permanent=True)"


def test_a_result_that_cannot_be_stored_fails_alone() -> None:
    def step(items: list[int]) -> list[Any]:
        return [1.5, float("nan"), 1j, (n for n in range(2))]

    found = run(step, 1, 2, 3, 4)
    assert [kind for kind, _ in found] == [0, FAILED_FOR_GOOD, FAILED_FOR_GOOD, 0]
    assert 'Output of step "step", index 101, cannot be stored: NaN' in found[1][1]
    assert found[3][1] == "[0,1]"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ([1], "A batch of 3 was answered with 1 results"),
        ([1, 2, 3, 4], "A batch of 3 was answered with 4 results"),
        (None, "A batch of 3 was answered with a NoneType, not a list"),
        ({"a": 1, "b": 2, "c": 3}, "A batch of 3 was answered with a dict, not a list"),
        ({1, 2, 3}, "A batch of 3 was answered with a set, not a list"),
        ("abc", "A batch of 3 was answered with a str, not a list"),
        (b"abc", "A batch of 3 was answered with a bytes, not a list"),
        (Failed("all"), "A batch of 3 was answered with a Failed, not a list"),
    ],
)
def test_an_answer_without_a_result_for_each_item_fails_all_of_them_for_good(answer: Any, says: str) -> None:
    calls: list[int] = []

    def step(items):  # type: ignore[no-untyped-def]
        calls.append(len(items))
        return answer

    found = run(step, 1, 2, 3)
    assert [kind for kind, _ in found] == [FAILED_FOR_GOOD] * 3
    assert calls == [3]
    for n, (_, text) in enumerate(found):
        assert f'Output of step "step", index {100 + n}, cannot be stored: {says}' in text
        assert "Failed(error) stands for one that failed" in text


@pytest.mark.parametrize("answer", [(1, 2, 3), deque([1, 2, 3]), range(1, 4), map(int, "123")])
def test_anything_in_order_is_an_answer(answer: Any) -> None:
    def step(items):  # type: ignore[no-untyped-def]
        return answer

    assert run(step, 7, 8, 9) == [(0, "1"), (0, "2"), (0, "3")]


def test_an_answer_may_be_yielded_and_what_it_raises_on_the_way_is_found() -> None:
    def step(items: list[int]) -> Iterator[int]:
        for item in items:
            yield 6 // item

    assert [kind for kind, _ in run(step, 1, 0, 3)] == [COMPLETED, FAILED, COMPLETED]


def test_arrays_of_numpy_go_in_and_out() -> None:
    numpy = pytest.importorskip("numpy")

    def step(items):  # type: ignore[no-untyped-def]
        assert isinstance(items, numpy.ndarray)
        assert items.sum() > 0
        return items / 2

    step.__annotations__["items"] = numpy.ndarray
    assert run(step, 1, 2, 3) == [(0, "0.5"), (0, "1.0"), (0, "1.5")]
    assert run(step, "[1,2]", "[3,4]") == [(0, "[0.5,1.0]"), (0, "[1.5,2.0]")]

    def divide(items):  # type: ignore[no-untyped-def]
        with numpy.errstate(all="ignore"):
            return 1 / items

    divide.__annotations__["items"] = numpy.ndarray
    assert [kind for kind, _ in run(divide, 1, 0, 4)] == [0, FAILED_FOR_GOOD, 0]


def test_one_item_may_be_run_by_itself_as_other_handlers_run_it() -> None:
    def step(items: list[int]) -> list[Any]:
        assert len(items) == 1
        return [{1: items, 2: Failed("two"), 3: PermanentError("three")}[items[0]]]

    handler = prepared(step)
    assert handler.execute(b"1", None, Context()) == (COMPLETED, b"[1]")
    assert handler.execute(b"2", None, Context()) == (FAILED, b"two")
    assert handler.execute(b"3", None, Context())[0] == FAILED_FOR_GOOD
    assert handler.execute(b"4", None, Context())[1].startswith(b"KeyError: 4")


def test_a_stop_is_looked_for_between_batches() -> None:
    stops = iter([False, False, True])

    def step(items: list[int]) -> list[int]:
        return items

    assert len(run(step, *range(12), stopped=lambda: next(stops))) == 8


def test_the_flow_s_input_is_there_for_batches_too() -> None:
    def step(items: list[int], flow_input: list[int]) -> list[int]:
        return [item + len(flow_input) for item in items]

    handler = prepared(step)
    outcomes = run_batches(handler, [b"1", b"2"], [0, 1], b"[1,2]", lambda low, input: Context())
    assert outcomes == [(0, b"3"), (0, b"4")]
