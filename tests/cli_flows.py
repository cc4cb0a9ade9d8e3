"""Flows for tests of the command line."""

from __future__ import annotations

import os
import time

from pgflow_mp import Context, Flow, PermanentError

square = Flow("square", max_attempts=1)


@square.map
def times(number: int) -> int:
    """One result per element."""
    return number * number


sums = Flow("sums", max_attempts=1)


@sums.map
def double(number: int) -> int:
    """Says something while it works."""
    if number == 2:
        print("a handler prints")
    return 2 * number


@sums.step(depends_on=[double])
def total(double: list[int]) -> int:
    """One result for all."""
    return sum(double)


talks = Flow("talks", max_attempts=1)


@talks.map
def tell(number: int, ctx: Context) -> int:
    """Logs something."""
    ctx.log.warning("careful with %d", number)
    ctx.log.debug("no more than that")
    return number


picky = Flow("picky", max_attempts=1)


@picky.map
def check(number: int) -> int:
    """Fails for good where a file of that name is not there."""
    if not os.path.exists(f"allowed-{number}") and number % 3 == 0:
        raise PermanentError(f"{number} is not allowed")
    return number


lenient = Flow("lenient", max_attempts=1)
lenient.map("check", check, tolerate=5)


unmet = Flow("unmet", max_attempts=1)


@unmet.step(when={"go": True})
def leaf(go: dict[str, bool]) -> int:
    """Skipped unless it is told to go."""
    return len(go)


barred = Flow("barred", max_attempts=1)


@barred.step
def ask(flow_input: dict[str, bool]) -> bool:
    """What the condition is about."""
    if flow_input.get("fail"):
        raise ValueError("no answer")
    return flow_input.get("go", False)


@barred.step(depends_on=[ask], when={"ask": True}, when_unmet="fail")
def go(ask: bool) -> int:
    """Fails the run unless it is told to go."""
    return int(ask)


slow = Flow("slow", max_attempts=1)


@slow.map
def nap(seconds: float) -> int:
    """Leaves a note of every execution."""
    with open("naps", "a") as file:
        file.write(f"{seconds}\n")
    time.sleep(seconds)
    return 1


@slow.step(depends_on=[nap])
def naps(nap: list[int]) -> int:
    """All of them."""
    return len(nap)
