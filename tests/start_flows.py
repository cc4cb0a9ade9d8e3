"""Flows with on_start functions that note what they do, and do what a file says: for tests."""

from __future__ import annotations

import decimal
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pgflow_mp import Flow

NOTES = "PGFLOW_TEST_NOTES"
"""Names the file that notes go to; what is to be done is in the same with the ending .order."""


def note(*words: object) -> None:
    with open(os.environ[NOTES], "a") as file:
        file.write(" ".join(map(str, (*words, os.getpid()))) + "\n")


def order() -> str:
    path = Path(os.environ[NOTES] + ".order")
    return path.read_text() if path.exists() else ""


class Model:
    """No JSON becomes one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.uses = 0


flow = Flow("starts", base_delay=1)


@flow.on_start
def name() -> str:
    note("name")
    os.environ["STARTED"] = "yes"
    decimal.getcontext().prec = 5
    return "big"


@flow.on_start
def model(name: str) -> Iterator[Model]:
    wanted = order()
    note("begin", wanted or "well")
    if wanted == "raise":
        raise FileNotFoundError("weights.bin")
    if wanted == "kill":
        os.kill(os.getpid(), signal.SIGSEGV)
    if wanted.startswith("sleep"):
        time.sleep(float(wanted.split()[1]))
    yield Model(name)
    if order() == "slow end":
        time.sleep(1.5)
    note("end")


@flow.map
def act(what: Any, model: Model) -> Any:
    model.uses += 1
    if what == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "pid":
        return os.getpid()
    if what == "state":
        return [os.environ.get("STARTED"), decimal.getcontext().prec]
    if isinstance(what, float):
        time.sleep(what)
    return [what, model.name, model.uses]


@flow.map(batch=2)
def batched(orders: list[Any], model: Model) -> list[Any]:
    model.uses += 1
    return [[each, model.name, model.uses] for each in orders]


@flow.array
def listed(flow_input: Any, model: Model) -> list[str]:
    return [model.name]


other = Flow("other")


@other.on_start
def number() -> int:
    note("number")
    return 7


@other.map
def add(item: int, number: int) -> int:
    return item + number
