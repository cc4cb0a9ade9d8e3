"""Mistakes in the types of flows, one a function: what no checker tells of is refused when it is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from pgflow_mp import Context, Flow, input_of, output_of, value_of


class Order(msgspec.Struct):
    kind: str
    words: list[str]


def the_runs_input_is_something_else() -> None:
    flow = Flow[Order]("wrong")

    @flow.step  # error: arg-type | reportCallIssue, reportArgumentType
    def first(order: str) -> int:
        return len(order)


def elements_of_the_runs_input_are_something_else() -> None:
    flow = Flow[list[str]]("wrong")

    @flow.map(tolerate=1)  # error: call-overload | reportCallIssue, reportArgumentType
    def first(number: int) -> int:
        return number


def the_runs_input_has_no_elements() -> None:
    flow = Flow[Order]("wrong")

    @flow.map  # error: arg-type | reportArgumentType
    def first(order: Order) -> str:
        return order.kind


def elements_of_a_parent_are_something_else() -> None:
    flow = Flow[Order]("wrong")

    @flow.array
    def words(order: Order) -> list[str]:
        return order.words

    @flow.map(over=words)  # error: call-overload | reportCallIssue, reportArgumentType
    def count(ctx: Context, word: int) -> int:
        return word


def a_map_is_over_what_is_no_array() -> None:
    flow = Flow[Order]("wrong")

    @flow.step
    def kind(order: Order) -> str:
        return order.kind

    @flow.map(over=kind)  # error: arg-type | reportCallIssue, reportArgumentType
    def letter(text: str) -> str:
        return text


def an_array_step_returns_none() -> None:
    flow = Flow[Order]("wrong")

    @flow.array  # error: arg-type | reportCallIssue, reportArgumentType
    def words(order: Order) -> int:
        return len(order.words)


def a_reducer_reads_another_type() -> None:
    flow = Flow[list[str]]("wrong")

    @flow.map
    def count(word: str) -> int:
        return len(word)

    @flow.step
    def longest(counts: Iterable[str] = output_of(count)) -> str:  # error: arg-type | reportArgumentType
        return max(counts)


def a_reducer_forgets_the_failures_that_its_parent_tolerates() -> None:
    flow = Flow("wrong")

    @flow.map(tolerate=0.1)
    def count(word: str) -> int:
        return len(word)

    @flow.step
    def total(counts: Iterable[int] = output_of(count)) -> int:  # error: arg-type | reportArgumentType
        return sum(counts)


def a_step_forgets_that_its_parent_may_be_skipped() -> None:
    flow = Flow[Order]("wrong")

    @flow.step(when={"kind": "gift"})
    def wrap(order: Order) -> str:
        return order.kind

    @flow.step(depends_on=[wrap])
    def ship(text: str = output_of(wrap)) -> str:  # error: assignment | reportArgumentType
        return text


def the_runs_input_is_something_else_in_a_later_step() -> None:
    flow = Flow[Order]("wrong")

    @flow.step
    def kind(order: Order) -> str:
        return order.kind

    @flow.step(depends_on=[kind])
    def later(kind: str, order: str = input_of(flow)) -> str:  # error: assignment | reportArgumentType
        return kind + order


def a_batch_is_taken_for_an_item() -> None:
    flow = Flow[Order]("wrong")

    @flow.array
    def words(order: Order) -> list[str]:
        return order.words

    @flow.map(over=words, batch=10)  # error: call-overload | reportCallIssue, reportArgumentType
    def count(word: str) -> list[int]:
        return [len(word)]


def a_batch_is_answered_with_one_result() -> None:
    flow = Flow[Order]("wrong")

    @flow.array
    def words(order: Order) -> list[str]:
        return order.words

    @flow.map(over=words, batch=10)  # error: call-overload | reportCallIssue, reportArgumentType
    def count(words: list[str]) -> int:
        return len(words)


def a_value_of_each_process_is_something_else() -> None:
    flow = Flow("wrong")

    @flow.on_start
    def model() -> Iterator[str]:
        yield "model"

    @flow.map
    def infer(word: str, model: int = value_of(model)) -> int:  # error: assignment | reportArgumentType
        return model


def a_condition_is_no_json() -> None:
    flow = Flow[Order]("wrong")

    @flow.step(when={"kind": {"gift"}})  # error: dict-item | reportArgumentType
    def wrap(order: Order) -> str:
        return order.kind


def a_parameter_that_is_named_after_its_parent_has_another_type() -> None:
    flow = Flow("wrong")

    @flow.step
    def first(x: int) -> int:
        return x

    @flow.step(depends_on=[first])
    def second(first: str) -> str:
        return first


def a_parameter_names_no_parent() -> None:
    flow = Flow("wrong")

    @flow.step
    def first(x: int) -> int:
        return x

    @flow.step(depends_on=[first])
    def second(frist: int) -> int:
        return frist


def a_condition_is_never_met() -> None:
    flow = Flow[Order]("wrong")

    @flow.step(when={"knid": "gift"})
    def wrap(order: Order) -> str:
        return order.kind
