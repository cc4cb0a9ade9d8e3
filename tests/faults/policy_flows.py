"""Flows for the tests of failure policies."""

from __future__ import annotations

import os
import time

from pgflow_mp import Context, Flow, PermanentError
from pgflow_mp.testing import Faults


def note(word: str, ctx: Context) -> None:
    """Leave a line for each execution in the file that PGFLOW_TEST_LOG names."""
    if path := os.environ.get("PGFLOW_TEST_LOG"):
        with open(path, "a") as file:
            file.write(f"{word} {ctx.task_index} {ctx.attempt}\n")


def refuse_sevens(number: int, ctx: Context) -> int:
    note("seven", ctx)
    if number == 7:
        raise PermanentError(f"no sevens, please (index {ctx.task_index})")
    return number


by_count = Flow("by_count")
by_count.map("check", refuse_sevens, tolerate=2)

by_share = Flow("by_share")
by_share.map("check", refuse_sevens, tolerate=0.1)

broken = Flow("broken", max_attempts=3, base_delay=1)


@broken.map(tolerate=1.0, stop_after_alike=5)
def never(number: int, ctx: Context) -> int:
    note("never", ctx)
    time.sleep(0.02)
    raise ValueError("the same for everyone")


killer = Flow("killer", max_attempts=3, base_delay=1)
deadly = Faults(at={500: "kill_self"})


@killer.map(tolerate=1)
def survive(number: int, ctx: Context) -> int:
    deadly.strike(ctx)
    return number


endless = Flow("endless", max_attempts=1)
hanging = Faults(at={500: "hang_in_c"})


@endless.map(tolerate=1)
def work(number: int, ctx: Context) -> int:
    if number < 0:
        hanging.strike(ctx)
    time.sleep(0.01)
    return number
