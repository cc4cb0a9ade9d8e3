"""Handlers that use multiprocessing themselves, in every way, wherever their flow was loaded from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from lane_harness import Harness, kinds, lanes, text

FLOW = """
import multiprocessing, os, signal, time
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from pgflow_mp import Flow

flow = Flow("nest")

def square(n: int) -> int:
    return n * n

@flow.map
def act(order: Any) -> Any:
    what, n = order
    if what == "default":
        with ProcessPoolExecutor(2) as pool:
            return sum(pool.map(square, range(n)))
    if what == "hear":
        pid = os.fork()
        if pid == 0:
            time.sleep(20)
            os._exit(1)
        os.kill(pid, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    context = multiprocessing.get_context(what)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        first = sum(pool.map(square, range(n)))
    with context.Pool(1) as pool:  # its end is a SIGTERM to its processes
        return [first, sum(pool.map(square, range(n)))]
"""


def ask(harness: Harness, orders: list[Any]) -> list[Any]:
    seq = harness.submit(orders, flow="nest", step="act")
    harness.until(lambda: seq in harness.done, 60.0)
    assert kinds(harness.of(seq)) == [0] * len(orders), text(harness.of(seq)[0])
    return [json.loads(text(outcome)) for outcome in harness.of(seq)]


@pytest.mark.parametrize(
    "place",
    [
        "script",
        "package",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("file", "my-flows.py", "package main")),
    ],
)
def test_every_start_method_works_in_a_handler(tmp_path: Path, place: str) -> None:
    package = tmp_path / "nested_pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    setup: dict[str, Any] = {"sys_path": [str(tmp_path)]}
    if place.startswith("package"):
        name = "__main__" if place == "package main" else "jobs"
        (package / f"{name}.py").write_text(FLOW)
        target = f"nested_pkg.{name}:nest"
    else:
        file = tmp_path / (place if place.endswith(".py") else "nest_flows.py")
        file.write_text(FLOW)
        target = str(file)
        if place == "script":
            target, setup = "__main__:nest", {"main_path": str(file)}
    with lanes(1, target=target, setup=setup) as harness:
        orders = [["default", 4], ["fork", 3], ["spawn", 3], ["forkserver", 3]]
        assert ask(harness, orders) == [14, [5, 5], [5, 5], [5, 5]]


@pytest.mark.slow
def test_a_process_that_has_just_been_forked_heeds_sigterm(tmp_path: Path) -> None:
    """It used to be lost, one time in twenty, in a child that had not come to itself yet."""
    file = tmp_path / "nest_flows.py"
    file.write_text(FLOW)
    with lanes(1, target=str(file)) as harness:
        assert ask(harness, [["hear", 0]] * 200) == [-15] * 200
        seq = harness.submit([["hear", 0]], flow="nest", step="act")
        os.kill(harness.pool.lanes()[0].pid, 15)  # and the lane itself still passes over it
        harness.until(lambda: seq in harness.done)
        assert kinds(harness.of(seq)) == [0]
    assert harness.deaths == []
