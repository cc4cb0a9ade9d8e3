#!/usr/bin/env python3
"""Items of 10 ms on Dask and on Ray: through a run, and by the engine alone with the same chunks.

Both in turns on one cluster of two processes on this machine, so that its speed cancels out. Exit status 1 if
the ratio of the medians is below --least.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from pgflow_mp.bench import bench_flows
from pgflow_mp.bench import burning as work
from pgflow_mp.bench.measure import interleave
from pgflow_mp.bench.stage import Stage, open_server
from pgflow_mp.executors.engines.packages import EXTRAS, check
from pgflow_mp.loading.finding import target_for
from pgflow_mp.run_request import RunRequest, StateDatabase
from pgflow_mp.runner import execute

PROCESSES: Final = 2
CHUNK: Final = 20  # what 0.2 s of work come to

Alone = Callable[[Callable[[list[int]], list[int]], list[list[int]]], Any]


def dask() -> tuple[Any, Alone]:
    """The executor, and chunks by Dask alone."""
    import distributed

    client = distributed.Client(
        n_workers=PROCESSES, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    return client, lambda run, chunks: client.gather(client.map(run, chunks, pure=False))


def ray() -> tuple[Any, Alone]:
    """The executor, and chunks by Ray alone."""
    import ray

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(address="local", num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False)
    return "ray", lambda run, chunks: ray.get([ray.remote(run).remote(chunk) for chunk in chunks])


def nap_chunk(items: list[int]) -> list[int]:
    """Several items in one call, as one would write by hand."""
    return [int(work.nap(item)) for item in items]


def measure(stage: Stage, executor: Any, alone: Alone, items: list[int], rounds: int, *, naps: bool) -> float:
    """Items per second of runs divided by those of the engine alone: medians, taken in turns."""
    flow, run = (bench_flows.bench_nap, nap_chunk) if naps else (bench_flows.bench_burn, work.burn_chunk)
    chunks = [items[at : at + CHUNK] for at in range(0, len(items), CHUNK)]

    def by_engine() -> float:
        began = time.perf_counter()
        alone(run, chunks)
        return len(items) / (time.perf_counter() - began)

    def by_run() -> float:
        with stage.database() as dsn:
            request = RunRequest(target_for(flow), flow.slug, input=str(items).encode(), executor=executor)
            done = execute(StateDatabase(dsn, "here", None), request)
        assert (done.status, done.items) == ("completed", len(items)), done
        return done.items / done.wall

    variants = {"alone": by_engine, "run": by_run}
    for first in variants.values():  # which imports
        first()
    found = interleave(variants, rounds)
    for name, rates in found.items():
        each = ", ".join(f"{rate:.0f}" for rate in rates.values)
        print(f"  {name:5} {each} items/s, median {rates.median:.0f}")
    return found["run"].median / found["alone"].median


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=["dask", "ray"])
    parser.add_argument("--items", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--least", type=float, default=0.9)
    parser.add_argument("--sleep", action="store_true", help="items sleep: whatever others do with the CPUs")
    asked = parser.parse_args()
    ok = True
    with open_server(None, print) as dsn:
        stage = Stage(dsn, PROCESSES, True, work.loops_per_second(), print)
        items = [10 if asked.sleep else stage.loops_for(0.01)] * asked.items
        for engine in asked.engines:
            check(engine)
            print(f"{engine} ({EXTRAS[engine]})")
            executor, alone = {"dask": dask, "ray": ray}[engine]()
            ratio = measure(stage, executor, alone, items, asked.rounds, naps=asked.sleep)
            print(f"{engine}: {ratio:.1%} of what it reaches alone")
            ok = ok and ratio >= asked.least
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
