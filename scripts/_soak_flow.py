"""The flow of the soak: map -> map -> single, with outputs that anyone can compute.

Handlers strike themselves on the first attempt of some items, chosen by PGFLOW_SOAK_SEED. PGFLOW_SOAK_STORAGE
says how maps are stored.
"""

from __future__ import annotations

import os
import time
from typing import Any

from pgflow_mp import Context, Flow
from pgflow_mp.testing import Faults

faults = Faults(
    int(os.environ.get("PGFLOW_SOAK_SEED", "0")),
    attempts=1,
    raise_once=0.01,
    segfault=0.001,
    exit=0.001,
    kill_self=0.001,
    hang_in_c=0.0003,
    hang=0.0003,
    stop=0.0002,
)
SECONDS = float(os.environ.get("PGFLOW_SOAK_ITEM_SECONDS", "0.004"))

storage: Any = os.environ.get("PGFLOW_SOAK_STORAGE")
soak = Flow("soak", max_attempts=9, base_delay=1, timeout=3, storage=storage)


@soak.map(tolerate=1.0)
def square(number: int, ctx: Context) -> int:
    faults.strike(ctx)
    time.sleep(SECONDS)
    return number * number


@soak.map(over=square, tolerate=1.0)
def tag(squared: int | None, ctx: Context) -> str | None:
    faults.strike(ctx)
    return None if squared is None else f"{ctx.task_index}={squared}"


@soak.step(depends_on=[square, tag])
def total(square: list[int | None], tag: list[str | None]) -> dict[str, int]:
    return {
        "items": len(tag),
        "sum": sum(number or 0 for number in square),
        "letters": sum(len(text or "") for text in tag),
    }


def expected(numbers: list[int]) -> dict[str, dict[str, int]]:
    """The output of a run in which nothing failed."""
    letters = sum(len(f"{index}={number * number}") for index, number in enumerate(numbers))
    return {"total": {"items": len(numbers), "sum": sum(n * n for n in numbers), "letters": letters}}
