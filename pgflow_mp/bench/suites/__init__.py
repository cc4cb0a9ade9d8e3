"""The suites: modules with ``run(stage) -> SuiteResult``, by the name that selects them."""

from __future__ import annotations

import importlib
import time
from typing import Final, NamedTuple, cast

from pgflow_mp.bench.findings import SuiteResult
from pgflow_mp.bench.stage import Stage


class Suite(NamedTuple):
    """``module`` in this package, one line of ``help``; ``asked`` ones run only when they are named."""

    module: str
    help: str
    asked: bool = False


SUITES: Final = {
    "scaling": Suite("scaling", "no-op items/s for 100 to 100,000 items, in five shapes of flow"),
    "item-times": Suite(
        "item_times", "0.1 to 100 ms items and a heavy-tailed mix, against a bare process pool"
    ),
    "payloads": Suite("payloads", "10 bytes to 100 KB in and out"),
    "lanes": Suite("many_lanes", "1 to 16 lanes of sleeping items, against the ideal"),
    "workers": Suite("workers", "several workers on one database"),
    "memory": Suite("parent_memory", "resident memory of parent and children"),
    "fairness": Suite("fairness", "a small run beside a big one of the same flow"),
    "spawn": Suite("spawn", "tasks made per second by start_flow"),
    "latency": Suite("latency", "one item from start_flow to completed; start of a worker"),
    "overhead": Suite("overhead", "CPU per no-op item of the worker's parent and of the server"),
    "noop": Suite("noop", "1,000,000 no-op items, against a bare process pool with chunks of 100"),
    "footprint": Suite("footprint", "write-ahead log, disk and CPU per item, besides the payload"),
    "open-transaction": Suite(
        "open_transaction", "the rate while a transaction of another session stays open"
    ),
    "million": Suite("million", "cost per item and memory at 1,000,000 items over 10,000", asked=True),
    "peers": Suite("side_by_side", "other task queues and pools, side by side", asked=True),
}


def run(name: str, stage: Stage) -> SuiteResult:
    """Run one suite and note how long it took."""
    module = importlib.import_module(f"{__name__}.{SUITES[name].module}")
    started = time.perf_counter()
    result = cast(SuiteResult, module.run(stage))
    result.seconds = time.perf_counter() - started
    return result
