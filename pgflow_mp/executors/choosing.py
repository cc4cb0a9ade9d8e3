"""What a user may give as ``--executor`` or ``executor=``, and the factory of the executor that it means.

Threads: the one that makes the executor.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor as Pool
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from pgflow_mp.errors import ConfigError
from pgflow_mp.executors.call_engines import CallEngine, InlinePool, PoolEngine
from pgflow_mp.executors.cpus import available_cpus
from pgflow_mp.executors.futures import FuturesExecutor
from pgflow_mp.executors.lanes.executor import lanes
from pgflow_mp.executors.messages import Setup
from pgflow_mp.executors.protocol import ExecutorFactory, Limits, OnEvent

WORDS: Final = "lanes, threads, inline"
Given = Pool | Callable[[], Pool] | str | Any
"""An Executor, a function that makes one, or a word."""


def factory(given: Given | None, workers: int | None = None) -> ExecutorFactory:
    """The ExecutorFactory for what a user gives.

    ``workers`` is how many chunks run at once at most (None: what it says itself, else one for each CPU).
    Raises ConfigError for anything else, and for an engine that is not installed.
    """
    if given is None or given == "lanes":
        return lanes
    if isinstance(given, str):
        return _of_word(given, workers)
    if not isinstance(given, Pool) and not callable(given):
        raise ConfigError(
            f"executor is a {type(given).__name__}, not a concurrent.futures.Executor: {given!r}",
            hint=f"Give an Executor, a function that makes one, or a word: {WORDS}.",
        )

    def make_engine() -> CallEngine:
        pool = given if isinstance(given, Pool) else given()
        again = None if isinstance(given, Pool) else given
        if not isinstance(pool, Pool):
            raise ConfigError(f"executor made a {type(pool).__name__}, not a concurrent.futures.Executor")
        places = workers or getattr(pool, "_max_workers", None) or available_cpus()
        return PoolEngine(pool, places, again=again)

    return _over(make_engine)


def _of_word(word: str, workers: int | None) -> ExecutorFactory:
    check_word(word)
    if word == "inline":
        return _over(lambda: PoolEngine(InlinePool(), 1, name="inline"))
    count = workers or available_cpus()

    def threads() -> Pool:
        return ThreadPoolExecutor(count, "pgflow_mp item")

    return _over(lambda: PoolEngine(threads(), count, again=threads, name="threads"))


def _over(make_engine: Callable[[], CallEngine], most: int | None = None) -> ExecutorFactory:
    def make(setup: Setup, limits: Limits, on_event: OnEvent) -> FuturesExecutor:
        return FuturesExecutor(
            setup,
            on_event,
            make_engine(),
            most=most,
            max_memory=limits.max_memory,
            load_timeout=limits.load_timeout,
        )

    return make


def check_word(word: str) -> None:
    """Raise ConfigError for a word that names no executor, or one of an engine that is not installed."""
    if word not in ("lanes", "threads", "inline"):
        raise ConfigError(f"there is no executor {word!r}", hint=f"There are {WORDS}.")
