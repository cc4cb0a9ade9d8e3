"""Flows that are executed inline and by a worker, to compare the two."""

from __future__ import annotations

from typing import Any

from pgflow_mp import Context, Failed, Flow, PermanentError

words = Flow("words")


@words.map
def count(line: str) -> int:
    return len(line.split())


@words.map(over=count)
def label(count: int, ctx: Context) -> str:
    return f"{ctx.task_index}:{count}"


@words.array(depends_on=[count])
def pairs(count: list[int]) -> list[list[int]]:
    return [[number, number] for number in count]


@words.map(over=pairs)
def summed(pair: list[int]) -> int:
    return sum(pair)


@words.step(depends_on=[label, summed])
def report(label: list[str], summed: list[int], flow_input: list[str]) -> dict[str, Any]:
    return {"labels": label, "sum": sum(summed), "lines": len(flow_input)}


choices = Flow("choices", max_attempts=1)


@choices.step
def first(text: dict[str, Any]) -> dict[str, Any]:
    return text


@choices.step(depends_on=[first], when={"first": {"kind": "a"}}, when_unmet="skip")
def only_a(first: dict[str, Any]) -> str:
    return "a"


@choices.step(depends_on=[first], unless={"first": {"kind": "a"}}, when_unmet="skip-cascade")
def not_a(first: dict[str, Any]) -> list[int]:
    return [1, 2]


@choices.map(over=not_a)
def of_not_a(number: int) -> int:
    return -number


@choices.step(depends_on=[only_a])
def after_a(parents: dict[str, Any]) -> dict[str, Any]:
    return dict(parents)


@choices.step(depends_on=[first], when_exhausted="skip")
def breaks(first: dict[str, Any]) -> None:
    raise ValueError(first["kind"])


@choices.step(depends_on=[breaks, first])
def after_breaks(parents: dict[str, Any]) -> list[str]:
    return sorted(parents)


tolerant = Flow("tolerant", max_attempts=1)


@tolerant.map(tolerate=2)
def odd(number: int) -> int:
    if number % 2 == 0:
        raise PermanentError(f"{number} is even")
    return number


@tolerant.step(depends_on=[odd])
def odds(odd: list[int | None]) -> int:
    return sum(number or 0 for number in odd)


alike = Flow("alike", max_attempts=1)


@alike.map(tolerate=1.0, stop_after_alike=3)
def broken(number: int) -> int:
    raise ValueError("not written yet")


starved = Flow("starved", max_attempts=1)


@starved.step
def no_list(anything: Any) -> Any:
    return {"a": 1}


@starved.map(over=no_list)
def over_no_list(item: Any) -> Any:
    return item


lazy = Flow("lazy", max_attempts=1)


@lazy.step
def given(anything: Any) -> Any:
    return [anything]


@lazy.map(over=given)
def pairs_of(anything: Any) -> Any:
    return zip([anything], "a", strict=True)


@lazy.step(depends_on=[pairs_of])
def strings(pairs_of: list[Any]) -> Any:
    return map(str, pairs_of)


leafless = Flow("leafless", max_attempts=1)


@leafless.step(when_exhausted="skip")
def gives_up(anything: Any) -> None:
    raise ValueError("not today")


flaky = Flow("flaky", base_delay=1)


@flaky.map
def twice(number: int, ctx: Context) -> int:
    if ctx.attempt <= number:
        raise ValueError(f"attempt {ctx.attempt}")
    return ctx.attempt


batched = Flow("batched", max_attempts=2, base_delay=1)


@batched.map(batch=3, tolerate=2)
def halved(numbers: list[int], ctx: Context) -> list[float | Failed | ValueError]:
    if 13 in numbers:
        raise KeyError(13)
    if 7 in numbers and ctx.attempt == 1:
        raise OSError("not yet")
    return [ValueError("odd for ever") if number == 5 else number / 2 for number in numbers]


@batched.step(depends_on=[halved])
def all_of_them(halved: list[float | None]) -> float:
    return sum(half or 0 for half in halved)
