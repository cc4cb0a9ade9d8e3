#!/usr/bin/env python3
"""A thousand items, one of which is bad: what comes back of the others, from pgflow_mp and from pools.

Bad is an item that kills its process (SIGKILL, as the kernel does where memory is short), or one that never
ends (in C, where no Python runs), with a limit of three seconds where there is one. Each case has a process
of its own, and a minute. Prints the table of docs/compared.md. What is not installed (joblib, distributed)
is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool
from typing import Any, Final

from pgflow_mp import Flow, run

ITEMS: Final = 1000
BAD: Final = 20
PROCESSES: Final = 4
MINUTE: Final = 60
LIMIT: Final = 3
CRASH, ENDLESS = "kills its process", "never ends"

flow = Flow("bad_items", base_delay=1, timeout=LIMIT)


@flow.map(tolerate=1)
def work(item: int) -> int:
    """Every item but one is quick, and doubled."""
    if item == BAD and os.environ["BAD_ITEMS"] == CRASH:
        os.kill(os.getpid(), signal.SIGKILL)
    if item == BAD:
        sum(iter(int, 1))  # zeros without end, added up in C
    return 2 * item


def pgflow_mp() -> int:
    with tempfile.TemporaryDirectory() as folder:
        output = run(flow, list(range(ITEMS)), data_dir=folder, workers=PROCESSES, output="work")
    assert isinstance(output, list)
    return sum(result is not None for result in output)


def process_pool() -> int:
    with ProcessPoolExecutor(PROCESSES) as pool:
        return _good(future.result for future in [pool.submit(work, item) for item in range(ITEMS)])


def multiprocessing_pool() -> int:
    with Pool(PROCESSES) as pool:
        return len(pool.map(work, range(ITEMS), chunksize=1))


def joblib(**options: Any) -> int:
    module: Any = importlib.import_module("joblib")
    calls = [module.delayed(work)(item) for item in range(ITEMS)]
    return _good([lambda: module.Parallel(n_jobs=PROCESSES, **options)(calls)])


def joblib_with_timeout() -> int:
    return joblib(timeout=LIMIT)


def distributed() -> int:
    module: Any = importlib.import_module("distributed")
    cluster = module.LocalCluster(PROCESSES, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, module.Client(cluster) as client:
        return _good(future.result for future in client.map(work, range(ITEMS), pure=False))


def _good(results: Iterable[Callable[[], Any]]) -> int:
    """How many items of these calls have a result; a list is as many."""
    good = 0
    for result in results:
        try:
            found = result()
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no result
            print(type(error).__name__, error, file=sys.stderr)
        else:
            good += len(found) if isinstance(found, list) else 1
    return good


CASES: Final[dict[str, tuple[Callable[[], int], str, str]]] = {
    "pgflow_mp": (pgflow_mp, CRASH, "pgflow_mp"),
    "ProcessPoolExecutor": (process_pool, CRASH, "sys"),
    "multiprocessing.Pool": (multiprocessing_pool, CRASH, "sys"),
    "joblib (loky)": (joblib, CRASH, "joblib"),
    "Dask distributed": (distributed, CRASH, "distributed"),
    "pgflow_mp, timeout=3": (pgflow_mp, ENDLESS, "pgflow_mp"),
    "joblib (loky), timeout=3": (joblib_with_timeout, ENDLESS, "joblib"),
}


def tried(name: str) -> tuple[str, float]:
    """What came back, and in how many seconds; everything that the case started is gone afterwards."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, __file__, "--case", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "BAD_ITEMS": CASES[name][1]},
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=MINUTE)
        answer = f"{json.loads(out):,} of {ITEMS:,}" if process.returncode == 0 else "none"
    except subprocess.TimeoutExpired:
        answer = "none: it waits for ever"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return answer, time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    case = parser.parse_args().case
    if case:
        print(json.dumps(CASES[case][0]()))
        return 0
    print("| the item | with | results of items | after |\n| --- | --- | --- | --- |")
    for name, (_, bad, package) in CASES.items():
        if importlib.util.find_spec(package):
            answer, seconds = tried(name)
            print(f"| {bad} | {name} | {answer} | {seconds:.0f} s |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
