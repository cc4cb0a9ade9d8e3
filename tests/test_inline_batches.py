"""Maps with ``batch=`` that are executed inline."""

from __future__ import annotations

from typing import Any

import pytest

from pgflow_mp import Context, Failed, Flow, PermanentError
from pgflow_mp.testing import FakeClock, execute_inline, run_inline
from pgflow_mp.testing.faults import SimulatedCrash, SimulatedTimeout


def flow_of(handler: Any, **options: Any) -> Flow:
    given: dict[str, Any] = {"batch": 4, "max_attempts": 1, "base_delay": 1}
    return Flow("f").map("m", handler, **given | options)


def test_a_handler_is_given_lists_and_each_result_is_its_items() -> None:
    sizes: list[int] = []

    def work(numbers: list[int], ctx: Context) -> list[str]:
        sizes.append(len(numbers))
        return [f"{ctx.task_index} {number}" for number in numbers]

    run = execute_inline(flow_of(work), [*range(9)])
    assert sizes == [4, 4, 1]
    assert run.output == {"m": [f"{4 * (number // 4)} {number}" for number in range(9)]}
    assert run_inline(flow_of(work), []) == {"m": []}
    assert sizes == [4, 4, 1]


def test_a_batch_that_raises_is_halved_down_to_who_is_to_blame() -> None:
    seen: list[list[int]] = []

    def work(numbers: list[int]) -> list[int]:
        seen.append(numbers)
        if 2 in numbers:
            raise ValueError("two")
        return numbers

    run = execute_inline(flow_of(work, tolerate=1), [0, 1, 2, 3])
    assert seen == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]
    assert run.output == {"m": [0, 1, None, 3]}
    step = run.steps["m"]
    assert (step.failed, step.attempts) == ({2}, [1, 1, 1, 1])
    assert step.errors[2].startswith("ValueError: two")


def test_failures_in_an_answer_are_those_of_their_items_alone() -> None:
    def work(numbers: list[int], ctx: Context) -> list[Any]:
        answers: dict[int, Any] = {
            1: Failed("again, please"),
            2: PermanentError("no use"),
            3: Failed("never", permanent=True),
        }
        return [answers.get(number, ctx.attempt) for number in numbers]

    clock = FakeClock()
    run = execute_inline(flow_of(work, max_attempts=2, tolerate=4), [0, 1, 2, 3, 4], clock=clock)
    assert run.output == {"m": [1, None, None, None, 1]}
    assert run.steps["m"].attempts == [1, 2, 1, 1, 1]
    assert [run.steps["m"].errors[n].partition("\n")[0] for n in (1, 2, 3)] == [
        "again, please",
        "pgflow_mp.errors.PermanentError: no use",
        "never",
    ]
    assert run.seconds == 2


def test_items_that_are_due_at_once_again_are_a_batch_again() -> None:
    seen: list[list[int]] = []

    def work(numbers: list[int], ctx: Context) -> list[Any]:
        seen.append(numbers)
        return [Failed("once") if ctx.attempt == 1 and number % 2 else number for number in numbers]

    assert run_inline(flow_of(work, max_attempts=2), [0, 1, 2, 3, 4, 5]) == {"m": [0, 1, 2, 3, 4, 5]}
    assert seen == [[0, 1, 2, 3], [4, 5], [1, 3, 5]]


@pytest.mark.parametrize("answer", [[1], 5, "abcd", None, {1: 1}], ids=str)
def test_an_answer_that_is_not_one_for_each_fails_the_batch_for_good(answer: Any) -> None:
    def work(numbers: list[int]) -> Any:
        return answer

    run = execute_inline(flow_of(work, max_attempts=3, tolerate=2), [1, 2])
    assert run.output == {"m": [None, None]}
    assert run.steps["m"].attempts == [1, 1]
    assert "A batch of 2 was answered with" in run.steps["m"].errors[0]


@pytest.mark.parametrize("trouble", [SimulatedCrash("SIGSEGV"), SimulatedTimeout()], ids=type)
def test_only_an_item_that_is_alone_is_charged_with_a_crash_or_a_timeout(trouble: BaseException) -> None:
    def work(numbers: list[int]) -> list[int]:
        if 6 in numbers:
            raise trouble
        return numbers

    run = execute_inline(flow_of(work, tolerate=1), [4, 5, 6, 7])
    assert run.output == {"m": [4, 5, None, 7]}
    assert run.steps["m"].failed == {2}
    assert ("Crashed" in run.steps["m"].errors[2]) is isinstance(trouble, SimulatedCrash)


def test_nothing_more_is_done_once_the_step_has_failed() -> None:
    def work(numbers: list[int]) -> list[Any]:
        return [Failed(f"number {number}") for number in numbers]

    run = execute_inline(flow_of(work), [1, 2, 3])
    assert (run.status, run.error) == ("failed", "number 1")
    assert run.steps["m"].errors == {0: "number 1"}


def test_an_input_that_does_not_fit_fails_alone() -> None:
    def work(numbers: list[int]) -> list[int]:
        return numbers

    run = execute_inline(flow_of(work, tolerate=1), [1, "two", 3])
    assert run.output == {"m": [1, None, 3]}
    assert "InputMismatch" in run.steps["m"].errors[1]


def test_storage_and_barrier_make_no_difference_here() -> None:
    flow = Flow("f", storage="ranges").map("a", abs).map("b", abs, over="a", barrier=False)
    assert run_inline(flow, [-1, 2]) == {"b": [1, 2]}
